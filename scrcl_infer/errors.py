"""Every error that scRCL raises on purpose, and the exit code each one becomes in the shell.

::

    ScrclError                       1   anything below
    ├── InputError                   3   the input file cannot be used as it is
    │   ├── MatrixError              3   no matrix in it holds what was asked for (counts, a layer, raw)
    │   └── GeneOverlapError         4   too few of the model's genes are in the file
    ├── BundleError                  5   the model bundle cannot be used
    │   ├── BundleSchemaError        5   its schema is unknown to this version
    │   ├── BundleIntegrityError     5   a file is missing, changed or does not replay
    │   └── BundleNotFoundError      5   no bundle of that name or path
    ├── OutputError                  6   the output cannot be written there (it exists, unknown ending)
    ├── TrainingError                7   training cannot go on (diverged, run folder of another setting)
    └── ExportError                  8   the exported encoder does not answer as the trained one

Exit code 2 is the shell's own: wrong usage of a command.
Texts say what was found, what was expected and what to do next.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "BundleIntegrityError",
    "BundleNotFoundError",
    "BundleSchemaError",
    "ExportError",
    "GeneOverlapError",
    "InputError",
    "MatrixError",
    "OutputError",
    "ScrclError",
    "TrainingError",
]


class ScrclError(Exception):
    """Base of all errors that scRCL raises on purpose."""

    exit_code = 1


class InputError(ScrclError):
    """The input file cannot be used as it is."""

    exit_code = 3


class MatrixError(InputError):
    """No matrix in the input holds what was asked for."""


class GeneOverlapError(InputError):
    """Too few of the model's genes are in the input."""

    exit_code = 4


class BundleError(ScrclError):
    """The model bundle cannot be used."""

    exit_code = 5


class BundleSchemaError(BundleError):
    """The bundle was written in a schema that this version does not know."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, was changed, or does not replay."""


class BundleNotFoundError(BundleError):
    """There is no bundle of that name or path."""


class OutputError(ScrclError):
    """The output cannot be written there."""

    exit_code = 6


class TrainingError(ScrclError):
    """Training cannot go on."""

    exit_code = 7


class ExportError(ScrclError):
    """The exported encoder does not answer as the trained one."""

    exit_code = 8
