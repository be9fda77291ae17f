"""What a call passes to the library, prepared once per layout of its tensors and kept: repeated calls only write addresses.

At 128 x 10 the library computes for three microseconds, and building the structs of a call in Python takes several times as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import c_double, c_int64, c_uint32, c_void_p
from typing import Any, TypeVar

from . import _abi
from ._library import batch_init

# The optional tensors of a batch: the names of their fields, and of the arguments in Python.
EXTRAS = (("sample_weights", "sample_weight"), ("targets2", "target2"), ("lam", "lam"), ("grad_loss", "grad_loss"))
# The number of layouts to keep. When it is reached, all are dropped.
_MOST = 256
_DATA = _abi.Tensor.data.offset


def _address_in(struct: ctypes.Structure, offset: int) -> c_void_p:
    """The field of `struct` that holds an address, so that it can be written without going through the enclosing fields."""
    return c_void_p.from_buffer(struct, offset)


class Plan:
    """A batch and its outputs for one layout of all tensors. It is filled and used by one thread at a time, under the lock of its criterion.

    It contains the addresses of the last call, but does not keep their memory alive.

    Args:
        extras: for each optional tensor that is passed: its index in `EXTRAS`, its view, and where each call writes its value; None for its address.
    """

    __slots__ = (
        "address", "batch", "extras", "flags", "gradient", "gradient_address", "gradient_data", "logits_data", "loss", "loss_address", "loss_data",
        "stream", "target_offset", "targets_data",
    )  # fmt: skip

    def __init__(
        self, logits: _abi.Tensor, targets: _abi.Tensor, extras: Iterable[tuple[int, _abi.Tensor, c_double | None]], loss: _abi.Tensor, gradient: _abi.Tensor
    ) -> None:  # fmt: skip
        batch = self.batch = batch_init()
        batch.logits, batch.targets = logits, targets
        self.extras: list[tuple[int, Any]] = []
        for number, view, value in extras:
            field = EXTRAS[number][0]
            setattr(batch, field, view)
            self.extras.append((number, _address_in(batch, getattr(_abi.Batch, field).offset + _DATA) if value is None else value))
        self.loss, self.gradient = loss, gradient
        self.address, self.loss_address, self.gradient_address = ctypes.addressof(batch), ctypes.addressof(loss), ctypes.addressof(gradient)
        self.logits_data = _address_in(batch, _abi.Batch.logits.offset + _DATA)
        self.targets_data = _address_in(batch, _abi.Batch.targets.offset + _DATA)
        self.loss_data, self.gradient_data = _address_in(loss, _DATA), _address_in(gradient, _DATA)
        self.flags = c_uint32.from_buffer(batch, _abi.Batch.flags.offset)
        self.target_offset = c_int64.from_buffer(batch, _abi.Batch.target_offset.offset)
        self.stream = _address_in(batch, _abi.Batch.stream.offset)


P = TypeVar("P", bound=Plan)


class Plans(dict[Any, P]):
    """Plans by their layouts. A loop needs the same plan again and again, so callers compare with `key` and use `last` first: that is cheaper than
    hashing the key."""

    __slots__ = ("key", "last")

    key: Any
    last: P | None

    def __init__(self) -> None:
        super().__init__()
        self.key = self.last = None

    def find(self, key: Any) -> P | None:
        """The plan for these layouts, or None if there is none yet."""
        found = self.get(key)
        if found is not None:
            self.key, self.last = key, found
        return found

    def add(self, key: Any, plan: P) -> P:
        """Keeps a new plan."""
        if len(self) >= _MOST:
            self.clear()
        self[key] = self.last = plan
        self.key = key
        return plan
