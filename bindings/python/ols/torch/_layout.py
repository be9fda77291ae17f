"""PyTorch's tensors as the library takes them."""

from __future__ import annotations

import torch

from .. import _abi
from .._errors import InvalidDeviceError
from .._memory import NotCollapsibleError, collapsed, set_layout

# DLPack's code and bits, also for dtypes that the library rejects, by name.
_CODES: dict[torch.dtype, tuple[int, int]] = {
    torch.float32: (_abi.CODE_FLOAT, 32),
    torch.float64: (_abi.CODE_FLOAT, 64),
    torch.float16: (_abi.CODE_FLOAT, 16),
    torch.bfloat16: (_abi.CODE_BFLOAT, 16),
    torch.int64: (_abi.CODE_INT, 64),
    torch.int32: (_abi.CODE_INT, 32),
    torch.int16: (_abi.CODE_INT, 16),
    torch.int8: (_abi.CODE_INT, 8),
    torch.uint8: (_abi.CODE_UINT, 8),
    torch.uint16: (_abi.CODE_UINT, 16),
    torch.uint32: (_abi.CODE_UINT, 32),
    torch.uint64: (_abi.CODE_UINT, 64),
    torch.bool: (6, 8),
}
# DLPack's numbers. PyTorch also calls ROCm devices cuda.
_DEVICES = {"cpu": _abi.DEVICE_CPU, "cuda": 10 if torch.version.hip else _abi.DEVICE_CUDA, "xpu": 14, "mps": 8}

Layout = tuple[int, int, int]


def device_of(tensor: torch.Tensor, name: str) -> tuple[int, int]:
    """DLPack's type and number of a tensor's device."""
    device = tensor.device
    if device.type not in _DEVICES:
        raise InvalidDeviceError(f"{name} is on device {device}, which is not supported", int(_abi.Status.INVALID_DEVICE))
    return _DEVICES[device.type], device.index or 0


def describe(tensor: torch.Tensor, name: str, keep: int = 3) -> _abi.Tensor:
    """A view of a tensor, which must outlive it, with the dimensions after the first `keep` merged into one. NotCollapsibleError if no single stride
    describes them."""
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} is {tensor.layout}, but the library reads dense tensors")
    if tensor.is_neg():
        raise ValueError(f"{name} is a view whose memory holds the negated values; pass {name}.resolve_neg()")
    if tensor.dtype not in _CODES:
        raise TypeError(f"{name} has dtype {tensor.dtype}, which is not supported")
    view = _abi.Tensor(data=tensor.data_ptr(), dtype_lanes=1)
    view.device_type, view.device_id = device_of(tensor, name)
    view.dtype_code, view.dtype_bits = _CODES[tensor.dtype]
    layout = collapsed(tensor.shape, tensor.stride(), keep)
    if layout is None:
        raise NotCollapsibleError(tuple(tensor.shape), tensor.stride())
    set_layout(view, layout)
    return view
