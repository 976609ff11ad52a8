"""The one place where onnxruntime is imported, so that it stays silent: nothing is sent, nothing is written.

From version 1.29 on, the official builds report sessions and models to their maker: a thread that uploads, a device id
and a database in the user's cache folder, a file in the temporary one. It starts with the import, and is decided then.
"""

from __future__ import annotations

import os
from typing import Any

_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:  # noqa: ANN401 - a module without types
    """Import onnxruntime with its telemetry off.

    A program that has imported it before has already decided; then further events are switched off for the process.

    Returns
    -------
    module
        `onnxruntime`.
    """
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        import onnxruntime
    finally:
        # What the host program starts later is its own affair.
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before
    onnxruntime.disable_telemetry_events()
    return onnxruntime
