"""The options that a user gives by keyword, as the library takes them and as checkpoints keep them."""

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
# The options that shape the result, beside those of their own form.
_NUMBERS = ("alpha", "smoothing", "momentum", "freeze_above", "min_count", "ignore_index")
_FORMAT = 1
# A fixed length, so that the tensor in a checkpoint has one shape whatever the numbers are.
JSON_BYTES = 1024


def int64(name: str, value: Any) -> int:
    """`value` as an int that an int64 holds: ctypes would take others modulo 2^64."""
    try:
        value = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} = {value!r} is no integer") from error
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} = {value} is outside [-2^63, 2^63)")
    return int(value)


def number(name: str, value: Any) -> float:
    """`value` as a float. A text is no number, though `float` would read it."""
    if not isinstance(value, (str, bytes, bytearray)):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{name} is an integer beyond the range of f64") from error
        except (TypeError, ValueError, RuntimeError):  # the last is PyTorch's, of a tensor with several elements
            pass
    raise TypeError(f"{name} = {value!r} is no number")


def array(name: str, values: Any, dtype: type) -> NDArray[Any]:
    """`values` in row-major memory of their own."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype, order="C")
    except OverflowError as error:
        raise ValueError(f"{name} holds an integer beyond the range of f64") from error
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: {error}") from error


def named(kind: type[E], argument: str, value: str, without: tuple[str, ...] = ()) -> E:
    """The member of an enum by the lower-case name that users write, but for those that no name stands for."""
    names = [name.lower() for name in kind.__members__ if name.lower() not in without]
    found = kind.__members__[value.upper()] if isinstance(value, str) and value in names else None
    if found is None:
        choices = ", ".join(map(repr, names))
        raise (ValueError if isinstance(value, str) else TypeError)(f"{argument} = {value!r} is none of {choices}")
    return found


def name_of(member: enum.IntEnum) -> str:
    return member.name.lower()


class Settings:
    """Options that are valid for the library's eye when a criterion is created with them. A value: copied, never shared."""

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
                raise ValueError("init = 'matrix': give the matrix itself, (K, K) with a row per class")
            self.initial = named(_abi.Initial, "init", init, without=("matrix",))
        else:
            self.initial = _abi.Initial.MATRIX
            self.initial_soft_labels = array("init", init, np.float32)
        self.empty_class = named(_abi.EmptyClass, "empty_class", empty_class)
        self.reduction = named(_abi.Reduction, "reduction", reduction)
        self.class_weights: NDArray[np.float64] | None = None if weight is None else array("weight", weight, np.float64)

    def apply_preset(self, preset: _abi.Preset) -> None:
        """Sets initial, smoothing and empty_class to what the library's preset says."""
        options = options_init()
        check(lib.ols_options_preset(byref(options), preset))
        self.initial, self.empty_class = _abi.Initial(options.initial), _abi.EmptyClass(options.empty_class)
        self.smoothing = options.smoothing

    def copy(self) -> Settings:
        return copy.copy(self)  # arrays are replaced, never written

    def options(self, threads: int | None = None) -> _abi.Options:
        """For `ols_create`. The arrays must outlive that call; the options point into them."""
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
        """Takes over what a load has replaced in a criterion."""
        options = handle.options()
        for name in _NUMBERS:
            setattr(self, name, getattr(options, name))
        self.initial, self.empty_class = _abi.Initial(options.initial), _abi.EmptyClass(options.empty_class)
        self.class_weights = _copied(options.class_weights, np.float64)
        self.initial_soft_labels = _copied(options.initial_soft_labels, np.float32)

    def to_json(self, epoch: int, rank: int) -> bytes:
        """The options that shape the result with epoch and rank, `JSON_BYTES` long, padded with spaces."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        record["freeze_above"] = None if math.isinf(self.freeze_above) else self.freeze_above
        record.update(initial=name_of(self.initial), empty_class=name_of(self.empty_class), num_classes=self.num_classes)
        record.update(format=_FORMAT, libols=version(), epoch=epoch, rank=rank, weighted=self.class_weights is not None)
        return json.dumps(record).encode().ljust(JSON_BYTES)

    @classmethod
    def from_json(cls, data: bytes, reduction: _abi.Reduction) -> tuple[Settings, int, int, bool]:
        """Settings (arrays still missing), epoch, rank, and whether there are class weights. ValueError where it is no such record."""
        record = json.loads(data)
        if not isinstance(record, dict) or not isinstance(record.get("format"), int):
            raise ValueError("it is no record of libols")
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
            raise ValueError(f"the record of the options is not complete: {error}") from error
        if init == "matrix":
            settings.initial = _abi.Initial.MATRIX
        return settings, epoch, rank, bool(weighted)

    def shown(self) -> str:
        """The options for `repr`: all that differ from the library's defaults, and those that matter most."""
        defaults = options_init()
        parts = [f"alpha={self.alpha:g}", f"n_classes={self.num_classes}"]
        if self.initial == _abi.Initial.SMOOTHING:
            parts.append(f"smoothing={self.smoothing:g}")
        else:
            parts.append("init=<matrix>" if self.initial == _abi.Initial.MATRIX else f"init={name_of(self.initial)!r}")
        parts.append(f"empty_class={name_of(self.empty_class)!r}")
        parts += [f"{name}={getattr(self, name):g}" for name in _NUMBERS[2:] if getattr(self, name) != getattr(defaults, name)]
        if self.class_weights is not None:
            parts.append("weight=<given>")
        return ", ".join([*parts, f"reduction={name_of(self.reduction)!r}"])


def _copied(tensor: _abi.Tensor, dtype: type) -> Any:
    """What a view of contiguous host memory shows, or None where there is none."""
    if not tensor.data:
        return None
    shape = tuple(tensor.shape[: tensor.ndim])
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(tensor.data, size), dtype).reshape(shape).copy()
