"""Views of other people's memory as the library takes them: strides, dimensions that collapse, NumPy arrays, DLPack."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _abi
from ._errors import InvalidDtypeError, InvalidShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = tuple[tuple[int, ...], tuple[int, ...]]
_KINDS = {"f": _abi.CODE_FLOAT, "i": _abi.CODE_INT, "u": _abi.CODE_UINT, "c": 5, "b": 6}


def collapsed(shape: Sequence[int], strides: Sequence[int], keep: int) -> Layout | None:
    """Shape and strides with all dimensions behind the first `keep` as one, or None where no single stride walks them."""
    if len(shape) <= keep:
        return tuple(shape), tuple(strides)
    size, step = 1, 1
    # From the last dimension on; those of size 1 have no say, and an empty tensor may have any stride.
    for extent, stride in zip(reversed(shape[keep:]), reversed(strides[keep:])):
        if extent == 1:
            continue
        if size == 1:
            step = stride
        elif stride != step * size and 0 not in shape:
            return None
        size *= extent
    return (*shape[:keep], size), (*strides[:keep], step)


def set_layout(tensor: _abi.Tensor, layout: Layout) -> None:
    """Writes shape and strides."""
    shape, strides = layout
    tensor.ndim = len(shape)
    for axis, (extent, stride) in enumerate(zip(shape[:3], strides[:3])):
        tensor.shape[axis], tensor.strides[axis] = extent, stride


def code_of_dtype(dtype: np.dtype[Any]) -> tuple[int, int]:
    """DLPack's code and bits."""
    if dtype.name == "bfloat16":  # ml_dtypes', which JAX's arrays bring along
        return _abi.CODE_BFLOAT, 16
    if dtype.kind not in _KINDS or not dtype.isnative:
        raise TypeError(f"dtype {dtype} is no number that the library knows")
    return _KINDS[dtype.kind], dtype.itemsize * 8


def tensor_of_array(array: NDArray[Any], keep: int = 3) -> _abi.Tensor:
    """A view of a NumPy array, which must outlive it, its dimensions behind the first `keep` collapsed. ValueError where they do not."""
    tensor = _abi.Tensor(data=array.ctypes.data, device_type=_abi.DEVICE_CPU, dtype_lanes=1)
    tensor.dtype_code, tensor.dtype_bits = code_of_dtype(array.dtype)
    strides = [stride // array.itemsize for stride in array.strides]
    if any(stride % array.itemsize for stride in array.strides):
        raise ValueError(f"strides of {array.strides} bytes are no multiples of {array.itemsize}")
    layout = collapsed(array.shape, strides, keep)
    if layout is None:
        raise NotCollapsibleError(array.shape, tuple(strides))
    set_layout(tensor, layout)
    return tensor


class NotCollapsibleError(ValueError):
    """Dimensions that no single stride walks: only a copy can be passed."""

    def __init__(self, shape: Sequence[int], strides: Sequence[int], whose: str = "") -> None:
        super().__init__(f"{whose}shape {tuple(shape)} with strides {tuple(strides)} does not collapse to three dimensions")


_LABELS = {(_abi.CODE_INT, 64), (_abi.CODE_INT, 32), (_abi.CODE_UINT, 8)}
_MIXTURE = "a mixture of two classes is given by their labels, target and target2, and lam"


def demand_labels(name: str, view: _abi.Tensor, dtype: object, shape: Sequence[int], logits: Sequence[int]) -> None:
    """InvalidDtypeError or InvalidShapeError, with a word for those who bring probabilities. What else may be wrong the library finds."""
    like_logits = len(shape) >= 2 and tuple(shape) == tuple(logits)
    if (view.dtype_code, view.dtype_bits) not in _LABELS:
        raise InvalidDtypeError(f"{name} has dtype {dtype}, but int64, int32 or uint8 is needed" + (f"; {_MIXTURE}" if like_logits else ""))
    if like_logits:
        raise InvalidShapeError(f"{name} has the logits' shape, {tuple(shape)}, but {(*shape[:1], *shape[2:])} is needed; {_MIXTURE}")


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


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]


class Borrowed:
    """A view of what an object shows through `__dlpack__`, or of a NumPy array. Holds it as long as the view lives.

    The capsule is not consumed but kept, and gives the memory back itself when it goes.
    """

    __slots__ = ("device", "dtype", "owner", "shape", "source", "tensor")

    def __init__(self, source: Any, keep: int, stream: int | None = None) -> None:
        self.source = source
        if isinstance(source, np.ndarray):
            self.owner: object = source
            self.tensor = tensor_of_array(source, keep)
            self.shape = source.shape
        elif hasattr(source, "__dlpack__"):
            self._take(source, keep, stream)
        else:
            raise TypeError(f"{type(source).__name__} is neither a NumPy array nor an object with __dlpack__")
        self.device = (self.tensor.device_type, self.tensor.device_id)
        self.dtype = (self.tensor.dtype_code, self.tensor.dtype_bits)

    def _take(self, source: Any, keep: int, stream: int | None) -> None:
        on_device = next(iter(source.__dlpack_device__())) == _abi.DEVICE_CUDA
        # The default stream is number 1 in this protocol; 0 is ambiguous there.
        capsule = source.__dlpack__(stream=stream or 1) if on_device else source.__dlpack__()
        found = ctypes.cast(_get_pointer(capsule, b"dltensor"), POINTER(_DLTensor)).contents
        self.owner = capsule
        bytes_each = found.bits * found.lanes // 8
        shape = tuple(found.shape[: found.ndim]) if found.ndim else ()
        if not found.ndim:
            strides: tuple[int, ...] = ()
        elif found.strides:
            strides = tuple(found.strides[: found.ndim])
        else:  # row-major
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(found.ndim))
        self.tensor = _abi.Tensor(device_type=found.device_type, device_id=found.device_id)
        self.tensor.data = (found.data or 0) + found.byte_offset or None
        self.tensor.dtype_code, self.tensor.dtype_bits, self.tensor.dtype_lanes = found.code, found.bits, found.lanes
        self.shape = shape
        layout = collapsed(shape, strides, keep)
        if layout is None:
            raise NotCollapsibleError(shape, tuple(step * bytes_each // max(bytes_each, 1) for step in strides))
        set_layout(self.tensor, layout)
