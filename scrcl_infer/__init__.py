"""Assign new cells to types with a trained model: light, offline, on a CPU.

::

    import scrcl_infer

    model = scrcl_infer.load("human-pbmc")
    answers = model.assign("new.h5ad")          # or an AnnData
    answers.cell_type, answers.confidence, answers.embedding
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrcl_infer.errors import ScrclError

if TYPE_CHECKING:
    from scrcl_infer.add import apply_assignment
    from scrcl_infer.pipeline import Model, load
    from scrcl_infer.result import AssignedBlock, Assignment, AssignOptions, Summary
    from scrcl_infer.target import Target

__all__ = [
    "AssignOptions",
    "AssignedBlock",
    "Assignment",
    "Model",
    "ScrclError",
    "Summary",
    "Target",
    "apply_assignment",
    "load",
]

# Loaded when first used: numpy, h5py and onnxruntime take longer to import than a help text takes to show.
_HOMES = {
    "AssignOptions": "scrcl_infer.result",
    "AssignedBlock": "scrcl_infer.result",
    "Assignment": "scrcl_infer.result",
    "Model": "scrcl_infer.pipeline",
    "Summary": "scrcl_infer.result",
    "Target": "scrcl_infer.target",
    "apply_assignment": "scrcl_infer.add",
    "load": "scrcl_infer.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'scrcl_infer' has no attribute '{name}'"
        raise AttributeError(msg)
    import importlib

    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
