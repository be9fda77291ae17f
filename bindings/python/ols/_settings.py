"""The options that users pass by keyword, as the library takes them and as checkpoints store them."""

from __future__ import annotations

import copy
import ctypes
import enum
import json
import math
import operator
from ctypes import byref
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from . import _abi, _threads
from ._library import Handle, check, lib, options_init, version
from ._memory import tensor_of_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

E = TypeVar("E", bound=enum.IntEnum)
EmptyClassName = Literal["keep", "uniform", "initial", "one_hot", "zero"]
ReductionName = Literal["mean", "sum", "none"]
# The options that affect the result and are plain numbers.
_NUMBERS = ("alpha", "smoothing", "momentum", "freeze_above", "min_count", "ignore_index")
_FORMAT = 1
# A fixed length, so that the tensor in a checkpoint has one shape whatever the numbers are.
JSON_BYTES = 1024


def int64(name: str, value: Any) -> int:
    """`value` as an int that fits an int64: ctypes would take others modulo 2^64."""
    try:
        value = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} = {value!r} is not an integer") from error
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} = {value} is outside [-2^63, 2^63)")
    return int(value)


def stream_number(stream: Any) -> int | None:
    """A stream as the library takes it: ctypes would take strings as addresses."""
    return None if stream is None else int64("stream", stream)


def number(name: str, value: Any) -> float:
    """`value` as a float. Strings are rejected, although `float` would parse them."""
    if not isinstance(value, (str, bytes, bytearray)):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{name} is an integer beyond the range of f64") from error
        except (TypeError, ValueError, RuntimeError):  # the last comes from PyTorch, for a tensor with several elements
            pass
    raise TypeError(f"{name} = {value!r} is not a number")


def array(name: str, values: Any, dtype: type) -> NDArray[Any]:
    """A row-major copy of `values`. Strings and complex numbers are rejected, although NumPy would convert them."""
    try:
        kind = np.asarray(values).dtype.kind
        if kind in "USTc":
            raise TypeError(f"{'complex numbers' if kind == 'c' else 'strings'} are not real numbers")
        with np.errstate(over="ignore"):
            return np.array(values, dtype, order="C")
    except OverflowError as error:
        raise ValueError(f"{name} contains an integer beyond the range of f64") from error
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: {error}") from error


def named(kind: type[E], argument: str, value: str, without: tuple[str, ...] = ()) -> E:
    """The member of an enum with the given lower-case name, except those in `without`."""
    names = [name.lower() for name in kind.__members__ if name.lower() not in without]
    found = kind.__members__[value.upper()] if isinstance(value, str) and value in names else None
    if found is None:
        choices = ", ".join(map(repr, names))
        raise (ValueError if isinstance(value, str) else TypeError)(f"{argument} = {value!r} is not one of {choices}")
    return found


def name_of(member: enum.IntEnum) -> str:
    return member.name.lower()


class Settings:
    """Options, which the library validates when a criterion is created with them. A value: copied, never shared."""

    alpha: float
    smoothing: float
    momentum: float
    freeze_above: float
    min_count: int
    ignore_index: int

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float,
        smoothing: float,
        init: str | Any,
        empty_class: str,
        min_count: int,
        momentum: float,
        freeze_above: float | None,
        weight: Any,
        ignore_index: int,
        reduction: str,
    ) -> None:
        self.num_classes = int64("n_classes", num_classes)
        self.alpha, self.smoothing, self.momentum = number("alpha", alpha), number("smoothing", smoothing), number("momentum", momentum)
        self.freeze_above = math.inf if freeze_above is None else number("freeze_above", freeze_above)
        self.min_count, self.ignore_index = int64("min_count", min_count), int64("ignore_index", ignore_index)
        self.initial_soft_labels: NDArray[np.float32] | None = None
        if isinstance(init, str):
            if init == "matrix":
                raise ValueError("init = 'matrix': pass the matrix itself, (K, K) with a row per class")
            self.initial = named(_abi.Initial, "init", init, without=("matrix",))
        else:
            self.initial = _abi.Initial.MATRIX
            self.initial_soft_labels = array("init", init, np.float32)
        self.empty_class = named(_abi.EmptyClass, "empty_class", empty_class)
        self.reduction = named(_abi.Reduction, "reduction", reduction)
        self.class_weights: NDArray[np.float64] | None = None if weight is None else array("weight", weight, np.float64)

    def apply_preset(self, preset: _abi.Preset) -> None:
        """Sets initial, smoothing and empty_class from a preset of the library."""
        options = options_init()
        check(lib.ols_options_preset(byref(options), preset))
        self.initial, self.empty_class = _abi.Initial(options.initial), _abi.EmptyClass(options.empty_class)
        self.smoothing = options.smoothing

    def copy(self) -> Settings:
        return copy.copy(self)  # arrays are replaced, never written

    def options(self, threads: int | None = None) -> _abi.Options:
        """The options for `ols_create`. They point into the arrays, which must outlive that call."""
        options = options_init()
        options.num_classes = self.num_classes
        for name in _NUMBERS:
            setattr(options, name, getattr(self, name))
        options.initial, options.empty_class, options.reduction = self.initial, self.empty_class, self.reduction
        options.n_threads = _threads.wanted() if threads is None else threads
        if self.class_weights is not None:
            options.class_weights = tensor_of_array(self.class_weights)
        if self.initial_soft_labels is not None:
            options.initial_soft_labels = tensor_of_array(self.initial_soft_labels)
        return options

    def adopt(self, handle: Handle) -> None:
        """Copies the options that a load has replaced in a criterion."""
        options = handle.options()
        for name in _NUMBERS:
            setattr(self, name, getattr(options, name))
        self.initial, self.empty_class = _abi.Initial(options.initial), _abi.EmptyClass(options.empty_class)
        self.class_weights = _copied(options.class_weights, np.float64)
        self.initial_soft_labels = _copied(options.initial_soft_labels, np.float32)

    def to_json(self, epoch: int, rank: int) -> bytes:
        """The options that affect the result, with epoch and rank, padded with spaces to `JSON_BYTES`."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        record["freeze_above"] = None if math.isinf(self.freeze_above) else self.freeze_above
        record.update(initial=name_of(self.initial), empty_class=name_of(self.empty_class), num_classes=self.num_classes)
        record.update(format=_FORMAT, libols=version(), epoch=epoch, rank=rank, weighted=self.class_weights is not None)
        return json.dumps(record).encode().ljust(JSON_BYTES)

    @classmethod
    def from_json(cls, data: bytes, reduction: _abi.Reduction) -> tuple[Settings, int, int, bool]:
        """Settings (without their arrays), epoch, rank, and whether there are class weights. ValueError if the data is not such a record."""
        record = json.loads(data)
        if not isinstance(record, dict) or not isinstance(record.get("format"), int):
            raise ValueError("not a record of libols")
        if record["format"] > _FORMAT:
            raise ValueError(f"format {record['format']} is newer than {_FORMAT}, the newest that this version reads")
        try:
            init = record["initial"]
            settings = cls(
                record["num_classes"],
                **{name: record[name] for name in _NUMBERS},
                init="uniform" if init == "matrix" else init,
                empty_class=record["empty_class"],
                weight=None,
                reduction=name_of(reduction),
            )
            epoch, rank, weighted = operator.index(record["epoch"]), operator.index(record["rank"]), record["weighted"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the record of the options is incomplete: {error}") from error
        if init == "matrix":
            settings.initial = _abi.Initial.MATRIX
        return settings, epoch, rank, bool(weighted)

    def shown(self) -> str:
        """The options for `repr`: the most important ones, and all that differ from the defaults."""
        defaults = options_init()
        parts = [f"alpha={self.alpha:g}", f"n_classes={self.num_classes}"]
        if self.initial == _abi.Initial.SMOOTHING:
            parts.append(f"smoothing={self.smoothing:g}")
        else:
            parts.append("init=<matrix>" if self.initial == _abi.Initial.MATRIX else f"init={name_of(self.initial)!r}")
        parts.append(f"empty_class={name_of(self.empty_class)!r}")
        changed = [(name, getattr(self, name)) for name in _NUMBERS[2:] if getattr(self, name) != getattr(defaults, name)]
        parts += [f"{name}={value}" if isinstance(value, int) else f"{name}={value:g}" for name, value in changed]
        if self.class_weights is not None:
            parts.append("weight=<given>")
        return ", ".join([*parts, f"reduction={name_of(self.reduction)!r}"])


def _copied(tensor: _abi.Tensor, dtype: type) -> Any:
    """A copy of a view of contiguous host memory, or None if there is none."""
    if not tensor.data:
        return None
    shape = tuple(tensor.shape[: tensor.ndim])
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(tensor.data, size), dtype).reshape(shape).copy()
