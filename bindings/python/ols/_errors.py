"""The library's statuses as exceptions. Each also derives from the matching built-in exception, and keeps the number of the status."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping

from ._abi import Status


class Error(Exception):
    """Base class of the library's errors. `status` is the number in include/ols.h; the message is the library's, with Python's argument names."""

    status: int = -1

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.status)


class InvalidArgumentError(Error, ValueError):
    """An option or a value is out of range, or inconsistent with another one."""


class InvalidDtypeError(Error, TypeError):
    """A tensor has a dtype that its argument does not accept."""


class InvalidShapeError(Error, ValueError):
    """A tensor has the wrong number of dimensions, a wrong size, or strides that cannot be read or written."""


class InvalidDeviceError(Error, RuntimeError):
    """A tensor is on a different device than the criterion."""


class TargetOutOfRangeError(Error, IndexError):
    """A target is neither a class nor the ignore index."""


class InvalidStateError(Error, RuntimeError):
    """The criterion's state does not allow the call: more is taken back than was added, or it is closed."""


class UnsupportedError(Error, RuntimeError):
    """This library or this machine does not support the request."""


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be allocated."""


# How the library ends what it passes on from the operating system; a temporary file's path may follow.
_OS_ERROR = re.compile(r'\(os error (\d+)\)(?: at path ".*")?\Z', re.S)


class FileError(Error, OSError):
    """A file could not be read or written. `errno` is the operating system's error number, or None if the library did not report one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        # Windows numbers its errors differently.
        found = None if sys.platform == "win32" else _OS_ERROR.search(message)
        if found:
            self.errno = int(found[1])


class MissingFileError(FileError, FileNotFoundError):
    """The file, or the folder to write it to, does not exist."""


class InvalidFileError(Error, ValueError):
    """The bytes are not a saved state, or are truncated or damaged."""


class CudaError(Error, RuntimeError):
    """CUDA reported an error."""


class PanicError(Error, RuntimeError):
    """A bug in libols. The criterion rejects all further calls."""


class UnknownStatusError(Error, RuntimeError):
    """A status that this package does not know, from a newer library."""


class LibraryError(RuntimeError, ImportError):
    """libols is missing, cannot be loaded, or has a different ABI version."""


OF_STATUS: dict[int, type[Error]] = {
    Status.INVALID_ARGUMENT: InvalidArgumentError,
    Status.INVALID_DTYPE: InvalidDtypeError,
    Status.INVALID_SHAPE: InvalidShapeError,
    Status.INVALID_DEVICE: InvalidDeviceError,
    Status.TARGET_OUT_OF_RANGE: TargetOutOfRangeError,
    Status.INVALID_STATE: InvalidStateError,
    Status.UNSUPPORTED: UnsupportedError,
    Status.OUT_OF_MEMORY: OutOfMemoryError,
    Status.IO: FileError,
    Status.INVALID_FILE: InvalidFileError,
    Status.CUDA: CudaError,
    Status.PANIC: PanicError,
}
for _status, _kind in OF_STATUS.items():
    _kind.status = int(_status)


# What the C ABI calls the arguments of this package.
ARGUMENTS = {
    "targets": "target",
    "targets2": "target2",
    "sample_weights": "sample_weight",
    "num_classes": "n_classes",
    "class_weights": "weight",
    "initial_soft_labels": "init",
}
# Their messages are about paths and the names in a file.
_OF_FILES = ("ols_save", "ols_load")
# Its logits are probabilities.
_OF_PROBABILITIES = "ols_accumulate"
_WORD = re.compile(r"\w+")
# How they describe a dtype that the library has no name for, and DLPack's kinds of dtypes.
_CODE = re.compile(r"\.dtype_code = (\d+) with dtype_bits = (\d+)")
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex"}


def in_python(message: str, renamed: Mapping[str, str] = ARGUMENTS) -> str:
    """A message of the library, with the names that arguments and dtypes have in Python."""
    if message.startswith(_OF_FILES):
        return message
    if message.startswith(_OF_PROBABILITIES):
        renamed = {**renamed, "logits": "probabilities"}
    message = _CODE.sub(lambda found: _named_dtype(int(found[1]), int(found[2])) or found[0], message)
    return _WORD.sub(lambda found: renamed.get(found[0], found[0]), message)


def _named_dtype(code: int, bits: int) -> str | None:
    """Only for the kinds whose names NumPy and PyTorch share."""
    name = "bool" if (code, bits) == (6, 8) else f"{_KINDS[code]}{bits}" if code in _KINDS else None
    return name and f".dtype = {name}"


def error_of(status: int, name: str, message: str, renamed: Mapping[str, str] = ARGUMENTS) -> Error:
    """The exception for a status other than OK; `name` is the library's name for it."""
    error = OF_STATUS.get(status, UnknownStatusError)(in_python(message, renamed) or f"libols: status {status} ({name})", status)
    return MissingFileError(str(error), status) if isinstance(error, FileError) and error.errno == errno.ENOENT else error
