"""Arrays of any library as a call sees them: NumPy's, and those that export their memory through `__dlpack__`."""

from __future__ import annotations

import ctypes
import math
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from . import _abi
from ._memory import NotCollapsibleError, collapsed, set_layout, tensor_of_layout


class Exported(NamedTuple):
    """The layout of an object that was exported through DLPack, strides in elements."""

    code: int
    bits: int
    lanes: int
    device_type: int
    device_id: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# The arguments that may be numbers.
MAY_BE_NUMBERS = ("lam", "grad_loss")
# For a NumPy array: shape, strides in bytes, dtype. Both are tuples because they are compared in every call.
Layout = tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]] | Exported


class _DLTensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _ArrayInterface(Structure):
    """NumPy's PyArrayInterface."""

    _fields_ = [
        ("two", ctypes.c_int),
        ("nd", ctypes.c_int),
        ("typekind", ctypes.c_char),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("data", c_void_p),
        ("descr", c_void_p),
    ]


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]
_pointer_at, _DATA, _ndarray = c_void_p.from_address, _ArrayInterface.data.offset, np.ndarray


def look(name: str, source: Any, stream: int | None = None) -> tuple[Layout, int | None, object]:
    """Layout and address of an array, and the object that keeps its memory alive: the array, or its DLPack capsule, which releases it by itself.

    `name` is the name of the argument, for errors.
    """
    if isinstance(source, _ndarray):
        # Twice as fast as `source.ctypes.data`. The struct lives as long as its capsule.
        capsule = source.__array_struct__
        return (source.shape, source.strides, source.dtype), _pointer_at(_get_pointer(capsule, None) + _DATA).value, source
    if not hasattr(source, "__dlpack__"):
        number = "a number, " if name in MAY_BE_NUMBERS else ""
        raise TypeError(f"{name} must be {number}a NumPy array or an object with __dlpack__, not {type(source).__name__}")
    if callable(is_neg := getattr(source, "is_neg", None)) and is_neg():
        # PyTorch exports the memory of such a view, but not the sign.
        raise BufferError(f"{name} is a view whose memory holds the negated values; pass {name}.resolve_neg()")
    try:
        return _look_at_exported(source, stream)
    except (AttributeError, BufferError, TypeError, ValueError) as error:  # AttributeError: a traced array of JAX
        kind = next((kind for kind in (BufferError, ValueError) if isinstance(error, kind)), TypeError)
        raise kind(f"{name}: {error}") from error


def _look_at_exported(source: Any, stream: int | None) -> tuple[Exported, int | None, object]:
    on_device = next(iter(source.__dlpack_device__())) == _abi.DEVICE_CUDA
    # The default stream is number 1 in this protocol; 0 is ambiguous there.
    capsule = source.__dlpack__(stream=stream or 1) if on_device else source.__dlpack__()
    found = _DLTensor.from_address(_get_pointer(capsule, b"dltensor"))
    ndim = found.ndim
    shape = tuple(found.shape[:ndim]) if ndim else ()
    if not ndim:
        strides: tuple[int, ...] = ()
    elif found.strides:
        strides = tuple(found.strides[:ndim])
    else:  # row-major
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(ndim))
    layout = Exported(found.code, found.bits, found.lanes, found.device_type, found.device_id, shape, strides)
    return layout, (found.data or 0) + found.byte_offset or None, capsule


def view(name: str, layout: Layout, keep: int) -> _abi.Tensor:
    """The array as the library takes it, without its address, with the dimensions after the first `keep` merged into one. NotCollapsibleError if they
    cannot be; TypeError or ValueError for arrays that the library cannot describe."""
    if isinstance(layout, Exported):
        walked = collapsed(layout.shape, layout.strides, keep)
        if walked is None:
            raise NotCollapsibleError(layout.shape, layout.strides)
        tensor = _abi.Tensor(device_type=layout.device_type, device_id=layout.device_id)
        tensor.dtype_code, tensor.dtype_bits, tensor.dtype_lanes = layout.code, layout.bits, layout.lanes
        set_layout(tensor, walked)
        return tensor
    try:
        return tensor_of_layout(*layout, keep)
    except NotCollapsibleError:
        raise
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: {error}") from error


def shape_of(layout: Layout) -> tuple[int, ...]:
    return layout.shape if isinstance(layout, Exported) else layout[0]


def on_host(layout: Layout) -> bool:
    return not isinstance(layout, Exported) or layout.device_type == _abi.DEVICE_CPU


_FLOATS = {(_abi.CODE_FLOAT, 16): "float16", (_abi.CODE_FLOAT, 32): "float32", (_abi.CODE_FLOAT, 64): "float64", (_abi.CODE_BFLOAT, 16): "bfloat16"}


def numpy_dtype(layout: Layout) -> np.dtype[Any]:
    """NumPy's dtype for a gradient of such logits."""
    if not isinstance(layout, Exported):
        return layout[2]
    name = _FLOATS.get((layout.code, layout.bits), "float32")  # the library refuses logits that are not floats
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise TypeError("logits in bfloat16 need the package ml_dtypes, as NumPy has no bfloat16 for their gradient") from error
        narrow: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return narrow
    return np.dtype(name)
