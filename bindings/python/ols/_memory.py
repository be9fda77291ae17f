"""Views of memory as the library takes them: strides, dimensions that collapse into one, NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _abi
from ._errors import InvalidDtypeError, InvalidShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = tuple[tuple[int, ...], tuple[int, ...]]
_KINDS = {"f": _abi.CODE_FLOAT, "i": _abi.CODE_INT, "u": _abi.CODE_UINT, "b": 6}


class CopyWarning(UserWarning):
    """A tensor had to be copied, because its memory cannot be described by three strides."""


class NotCollapsibleError(ValueError):
    """Dimensions that no single stride describes: only a copy can be passed."""

    def __init__(self, shape: Sequence[int], strides: Sequence[int], whose: str = "") -> None:
        super().__init__(f"{whose}shape {tuple(shape)} with strides {tuple(strides)} does not collapse to three dimensions")


def collapsed(shape: Sequence[int], strides: Sequence[int], keep: int) -> Layout | None:
    """Shape and strides with all dimensions after the first `keep` merged into one, or None if no single stride describes them."""
    if len(shape) <= keep:
        return tuple(shape), tuple(strides)
    size, step = 1, 1
    # From the last dimension; those of size 1 do not matter, and an empty tensor may have any strides.
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
    if dtype.name == "bfloat16":  # from ml_dtypes, which JAX uses
        return _abi.CODE_BFLOAT, 16
    if dtype.kind not in _KINDS or not dtype.isnative or dtype.itemsize > 8:
        raise TypeError(f"dtype {dtype} is not supported")
    return _KINDS[dtype.kind], dtype.itemsize * 8


def tensor_of_layout(shape: Sequence[int], strides: Sequence[int], dtype: np.dtype[Any], keep: int = 3) -> _abi.Tensor:
    """A view of host memory, without its address; `strides` are in bytes, and the dimensions after the first `keep` are merged into one. ValueError if
    they cannot be."""
    tensor = _abi.Tensor(device_type=_abi.DEVICE_CPU, dtype_lanes=1)
    tensor.dtype_code, tensor.dtype_bits = code_of_dtype(dtype)
    size = dtype.itemsize
    if any(stride % size for stride in strides):
        raise ValueError(f"strides of {tuple(strides)} bytes are not multiples of {size}")
    steps = tuple(stride // size for stride in strides)
    layout = collapsed(shape, steps, keep)
    if layout is None:
        raise NotCollapsibleError(shape, steps)
    set_layout(tensor, layout)
    return tensor


def tensor_of_array(array: NDArray[Any]) -> _abi.Tensor:
    """A view of a NumPy array of up to three dimensions, which must outlive it."""
    tensor = tensor_of_layout(array.shape, array.strides, array.dtype)
    tensor.data = array.ctypes.data
    return tensor


_LABELS = {(_abi.CODE_INT, 64), (_abi.CODE_INT, 32), (_abi.CODE_UINT, 8)}
_MIXTURE = "to mix two classes, pass their labels as target and target2, and lam"


def demand_labels(name: str, view: _abi.Tensor, dtype: object, shape: Sequence[int], logits: Sequence[int]) -> None:
    """InvalidDtypeError or InvalidShapeError, with a hint for those who pass probabilities. The library checks everything else."""
    like_logits = len(shape) >= 2 and tuple(shape) == tuple(logits)
    if (view.dtype_code, view.dtype_bits) not in _LABELS:
        raise InvalidDtypeError(f"{name} has dtype {dtype}, but int64, int32 or uint8 is needed" + (f"; {_MIXTURE}" if like_logits else ""))
    if like_logits:
        raise InvalidShapeError(f"{name} has the logits' shape, {tuple(shape)}, but {(*shape[:1], *shape[2:])} is needed; {_MIXTURE}")


# A tensor of one number does for all samples.
_MAY_BE_ONE = ("lam", "grad_loss")


def shape_of_target(logits: Sequence[int], classes: int) -> tuple[int, ...] | None:
    """The shape that belongs to logits of this shape, or None if they are wrong themselves, which the library says better."""
    return (logits[0], *logits[2:]) if len(logits) >= 2 and logits[1] == classes else None


def demand_shape(name: str, shape: Sequence[int], needed: Sequence[int] | None, keep: int) -> None:
    """InvalidShapeError if a shape is wrong and dimensions after the first `keep` are merged: the library would see an image on its side as the right one,
    and name sizes that the caller has not passed. It checks all others."""
    if needed is None:
        return
    shape, needed = tuple(shape), tuple(needed)
    if shape == needed or max(len(shape), len(needed)) <= keep + 1:
        return
    if name in _MAY_BE_ONE and len(shape) <= 1 and math.prod(shape) == 1:
        return
    raise InvalidShapeError(f"{name} has shape {shape}, but {needed} is needed")
