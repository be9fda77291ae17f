"""Loads libols and declares its functions; the only place where a status becomes an exception."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

from . import _abi
from ._errors import ARGUMENTS, InvalidStateError, LibraryError, error_of

_NAME = {"darwin": "libols.dylib", "win32": "ols.dll"}.get(sys.platform, "libols.so")
_status = c_int32
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ols_version": (c_char_p, []),
    "ols_abi_version": (c_uint32, []),
    "ols_status_string": (c_char_p, [c_int32]),
    "ols_last_error": (c_char_p, []),
    "ols_options_init": (_status, [POINTER(_abi.Options), c_size_t]),
    "ols_options_preset": (_status, [POINTER(_abi.Options), c_int32]),
    "ols_get_options": (_status, [c_void_p, POINTER(_abi.Options)]),
    "ols_batch_init": (_status, [POINTER(_abi.Batch), c_size_t]),
    "ols_create": (_status, [POINTER(_abi.Options), POINTER(c_void_p)]),
    "ols_destroy": (None, [c_void_p]),
    # Addresses of structs: what every step calls takes prepared structs, without a conversion.
    "ols_forward": (_status, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "ols_backward": (_status, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "ols_accumulate": (_status, [c_void_p, c_void_p]),
    "ols_statistics": (_status, [c_void_p, POINTER(_abi.Statistics)]),
    "ols_next_epoch": (_status, [c_void_p, c_void_p]),
    "ols_report": (_status, [c_void_p, c_void_p, POINTER(_abi.Report)]),
    "ols_soft_labels": (_status, [c_void_p, POINTER(_abi.Tensor)]),
    "ols_set_soft_labels": (_status, [c_void_p, POINTER(_abi.Tensor), c_void_p]),
    "ols_set_mode": (_status, [c_void_p, c_int32]),
    "ols_mode": (_status, [c_void_p, POINTER(c_int32)]),
    "ols_set_alpha": (_status, [c_void_p, c_double]),
    "ols_epoch": (_status, [c_void_p, POINTER(c_int64)]),
    "ols_set_epoch": (_status, [c_void_p, c_int64]),
    "ols_save": (_status, [c_void_p, c_char_p, c_void_p]),
    "ols_load": (_status, [c_void_p, c_char_p, c_void_p]),
    "ols_save_memory": (_status, [c_void_p, c_void_p, c_size_t, c_void_p, POINTER(c_size_t)]),
    "ols_load_memory": (_status, [c_void_p, c_void_p, c_size_t, c_void_p]),
}


def library_path() -> str:
    """Path of the library: the environment variable `OLS_LIBRARY`, or the one in the package."""
    return os.environ.get("OLS_LIBRARY") or os.path.join(os.path.dirname(os.path.abspath(__file__)), _NAME)


def load(path: str) -> ctypes.CDLL:
    """Loads the library at `path` and checks its version before any other call. Raises `LibraryError` (a RuntimeError and an ImportError)."""
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise LibraryError(f"libols cannot be loaded from {path}: {error}. The environment variable OLS_LIBRARY can name another one") from error
    try:
        for name in ("ols_abi_version", "ols_version"):
            function = getattr(library, name)
            function.restype, function.argtypes = _FUNCTIONS[name]
    except AttributeError as error:
        raise LibraryError(f"{path} is not libols: {error}") from error
    version = library.ols_version().decode()
    if library.ols_abi_version() != _abi.ABI_VERSION:
        raise LibraryError(
            f"{path} (libols {version}) has ABI version {library.ols_abi_version()}, but this package was written for {_abi.ABI_VERSION}"
        )
    if not version.startswith(_abi.VERSION_PREFIX):
        raise LibraryError(
            f"{path} is libols {version}, but this package was written for {_abi.VERSION_PREFIX}x; minor versions before 1.0 are incompatible"
        )
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


path = library_path()
lib = load(path)


def version() -> str:
    """Version of the loaded library."""
    return bytes(lib.ols_version()).decode()


def check(status: int, renamed: Mapping[str, str] = ARGUMENTS) -> None:
    """Raises the exception of a status, with the library's message, which belongs to this thread until its next call."""
    if status:
        message = lib.ols_last_error().decode()
        raise error_of(status, lib.ols_status_string(status).decode(), message, renamed)


def options_init() -> _abi.Options:
    """The library's default options."""
    options = _abi.Options()
    check(lib.ols_options_init(byref(options), ctypes.sizeof(options)))
    return options


def batch_init() -> _abi.Batch:
    """A batch without a tensor."""
    batch = _abi.Batch()
    check(lib.ols_batch_init(byref(batch), ctypes.sizeof(batch)))
    return batch


class Handle:
    """A criterion in the library, destroyed once, by `close` or with the last reference. `keep` owns the memory that it was given."""

    __slots__ = ("__weakref__", "_address", "_destroy", "keep")

    def __init__(self, options: _abi.Options, keep: object = None) -> None:
        self._address: int | None = None
        # Bound here: when the interpreter exits, the module's names may be gone before the last criterion.
        self._destroy = lib.ols_destroy
        address = c_void_p()
        check(lib.ols_create(byref(options), byref(address)))
        self._address, self.keep = address.value, keep

    @property
    def address(self) -> int:
        """The address that the library's functions take."""
        if self._address is None:
            raise InvalidStateError("the criterion is closed")
        return self._address

    @property
    def closed(self) -> bool:
        return self._address is None

    def close(self) -> None:
        """Destroys the criterion; closing it again does nothing."""
        address, self._address = self._address, None
        if address is not None:
            self._destroy(address)
            self.keep = None

    def __del__(self) -> None:
        if getattr(self, "_address", None) is not None:
            self.close()

    def report(self, stream: int | None = None) -> _abi.Report:
        """The current report."""
        report = _abi.Report(struct_size=ctypes.sizeof(_abi.Report))
        check(lib.ols_report(self.address, stream, byref(report)))
        return report

    def options(self) -> _abi.Options:
        """The current options. The views of weights and soft labels in them are valid until the next load."""
        options = _abi.Options(struct_size=ctypes.sizeof(_abi.Options))
        check(lib.ols_get_options(self.address, byref(options)))
        return options

    def epoch(self) -> int:
        """Number of epochs that have ended."""
        epoch = c_int64()
        check(lib.ols_epoch(self.address, byref(epoch)))
        return epoch.value

    def save_memory(self, stream: int | None = None) -> bytes:
        """The bytes of the file that `ols_save` would write."""
        size = c_size_t()
        check(lib.ols_save_memory(self.address, None, 0, stream, byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        check(lib.ols_save_memory(self.address, buffer, size.value, stream, byref(size)))
        return buffer.raw

    def load_memory(self, data: bytes, stream: int | None = None) -> None:
        """Loads bytes returned by `save_memory`."""
        check(lib.ols_load_memory(self.address, data, len(data), stream))
