"""Online Label Smoothing: a classification loss that learns its own soft labels, computed by the library libols.

`OnlineLabelSmoothing` and `LabelSmoothingLoss` are PyTorch modules; PyTorch is imported when they are first used. `Criterion` only needs NumPy.
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec
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
    MissingFileError,
    OutOfMemoryError,
    PanicError,
    TargetOutOfRangeError,
    UnknownStatusError,
    UnsupportedError,
)
from ._library import version as library_version
from ._memory import CopyWarning
from ._report import Report
from ._threads import get_num_threads, set_num_threads
from .criterion import Criterion

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
    "MissingFileError",
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
# `from ols import *` asks for each of these names.
if _find_spec("torch"):
    __all__ += ["LabelSmoothingLoss", "OnlineLabelSmoothing"]


def __getattr__(name: str) -> Any:
    if name in _OF_TORCH:
        try:
            from . import torch as modules
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(
                f"{__name__}.{name} needs PyTorch, which is not installed; the extra 'libols[torch]' installs it", name="torch"
            ) from error

        return getattr(modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OF_TORCH})
