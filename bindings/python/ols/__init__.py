"""Online Label Smoothing: a classification loss that learns its own soft labels, over the library libols.

`OnlineLabelSmoothing` and `LabelSmoothingLoss` are modules of PyTorch, which is imported when they are first asked for; `Criterion` needs NumPy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import (
    CudaError,
    Error,
    FileError,
    InvalidArgumentError,
    InvalidDeviceError,
    InvalidDtypeError,
    InvalidFileError,
    InvalidShapeError,
    InvalidStateError,
    LibraryError,
    OutOfMemoryError,
    PanicError,
    TargetOutOfRangeError,
    UnknownStatusError,
    UnsupportedError,
)
from ._library import version as library_version
from ._report import Report
from ._threads import get_num_threads, set_num_threads
from .criterion import CopyWarning, Criterion

if TYPE_CHECKING:
    from .torch import LabelSmoothingLoss as LabelSmoothingLoss
    from .torch import OnlineLabelSmoothing as OnlineLabelSmoothing

__version__ = library_version()

_OF_TORCH = ("LabelSmoothingLoss", "OnlineLabelSmoothing")

__all__ = [
    "CopyWarning",
    "Criterion",
    "CudaError",
    "Error",
    "FileError",
    "InvalidArgumentError",
    "InvalidDeviceError",
    "InvalidDtypeError",
    "InvalidFileError",
    "InvalidShapeError",
    "InvalidStateError",
    "LibraryError",
    "OutOfMemoryError",
    "PanicError",
    "Report",
    "TargetOutOfRangeError",
    "UnknownStatusError",
    "UnsupportedError",
    "get_num_threads",
    "library_version",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    if name in _OF_TORCH:
        from . import torch as modules

        return getattr(modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OF_TORCH})
