"""A call of `Criterion`: the plan for its arrays, their addresses, and its outputs."""

from __future__ import annotations

import contextlib
import ctypes
import warnings
from ctypes import c_double
from typing import Any

import numpy as np

from . import _abi
from ._arrays import MAY_BE_NUMBERS, Exported, Layout, look, numpy_dtype, on_host, shape_of, view
from ._core import Core
from ._errors import ARGUMENTS
from ._library import check, lib
from ._memory import CopyWarning, NotCollapsibleError, demand_labels, demand_shape, shape_of_target
from ._plan import EXTRAS, Plan, Plans
from ._settings import int64, number, stream_number

# sample_weight, target2, lam, grad_loss.
Extras = tuple[Any, Any, Any, Any]
# What the C ABI calls an output.
_RENAMED = {**ARGUMENTS, "grad": "out"}
# What a number has in place of a layout.
_NUMBER = "number"
_NUMBERS = (int, float, np.integer, np.floating, np.bool_)
_Given = Layout | str | None
forward, backward, accumulate = lib.ols_forward, lib.ols_backward, lib.ols_accumulate


class ArrayPlan(Plan):
    """A plan with memory for a scalar loss on the host, so that a call does not have to allocate it."""

    __slots__ = ("scalar",)

    scalar: np.ndarray[Any, Any] | None


class Calls:
    """The calls of one criterion."""

    __slots__ = ("_each", "_plans", "core")

    def __init__(self, core: Core) -> None:
        self.core = core
        self._each = core.settings.reduction == _abi.Reduction.NONE
        self._plans: Plans[ArrayPlan] = Plans()

    def run(
        self, function: Any, logits: Any, target: Any, extras: Extras, target_offset: int, flags: int, stream: int | None, with_loss: bool = False,
        with_gradient: bool = False, out: Any = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Loss and gradient, each None if not requested. Called directly by the methods that users call: a `CopyWarning` names the user's line."""
        if stream is not None:
            stream = stream_number(stream)
        # Outside of the lock, as `__dlpack__` may run any code. The capsules are kept until the call has returned.
        z, logits_at, _capsule = look("probabilities" if function is accumulate else "logits", logits, stream)
        y, target_at, _capsule2 = look("target", target, stream)
        if target_offset.__class__ is not int or not -(2**63) <= target_offset < 2**63:
            target_offset = int64("target_offset", target_offset)
        given: tuple[_Given, ...] | None = None
        values: list[Any] = []
        sample_weight, target2, lam, grad_loss = extras
        if not (sample_weight is target2 is lam is grad_loss is None):
            given, values, _capsules = _look_at_extras(extras, logits, z, stream)
        loss = like_loss = loss_at = gradient = like_gradient = gradient_at = None
        if with_loss and (self._each or not on_host(z)):
            loss = _new_loss(logits, z, shape_of(y) if self._each else ())
            like_loss, loss_at, _capsule3 = look("loss", loss, stream)
        if with_gradient:
            gradient = _gradient(logits, z, out)
            like_gradient, gradient_at, _capsule4 = look("out", gradient, stream)
        key = z, y, given, like_loss, like_gradient

        core, plans = self.core, self._plans
        with core.lock:
            plan = plans.last if key == plans.key else plans.find(key)
            if plan is None:
                with contextlib.suppress(NotCollapsibleError):
                    plan = plans.add(key, _new_plan(core.settings.num_classes, self._each, target, target2, *key))
            if plan is not None:
                plan.logits_data.value, plan.targets_data.value, plan.stream.value = logits_at, target_at, stream
                plan.target_offset.value, plan.flags.value = target_offset, flags
                for place, slot in plan.extras:
                    slot.value = values[place]
                if loss is not None:
                    plan.loss_data.value = loss_at
                if with_gradient:
                    plan.gradient_data.value = gradient_at
                if function is accumulate:
                    status = function(core.current(), plan.address)
                else:
                    outputs = plan.loss_address if with_loss else None, plan.gradient_address if with_gradient else None
                    status = function(core.current(), plan.address, *outputs)
                if status:
                    check(status, _RENAMED)
                if with_loss and loss is None:
                    loss = plan.scalar[()]  # type: ignore[index]
                return loss, gradient
        logits, target, extras = _copied(logits, target, extras, stream)
        return self.run(function, logits, target, extras, target_offset, flags, stream, with_loss, with_gradient, out)


def _look_at_extras(extras: Extras, logits: Any, z: Layout, stream: int | None) -> tuple[tuple[_Given, ...], list[Any], list[object]]:
    """Layouts of the optional tensors, their addresses or the numbers themselves, and the objects that keep their memory alive."""
    given: list[_Given] = []
    values: list[Any] = []
    kept: list[object] = []
    for (_, name), value in zip(EXTRAS, extras):
        if value is None:
            given.append(None)
            values.append(None)
            continue
        if name in MAY_BE_NUMBERS and isinstance(value, _NUMBERS):
            value = number(name, value)
            if on_host(z):
                given.append(_NUMBER)
                values.append(value)
                continue
            xp = logits.__array_namespace__()
            value = xp.full((), value, dtype=xp.float64, device=logits.device)
        layout, address, owner = look(name, value, stream)
        given.append(layout)
        values.append(address)
        kept += (value, owner)
    return tuple(given), values, kept


def _new_loss(logits: Any, z: Layout, shape: tuple[int, ...]) -> Any:
    name = _loss_dtype(z)
    if on_host(z):
        return np.empty(shape, name)
    xp = logits.__array_namespace__()
    return xp.empty(shape, dtype=getattr(xp, name), device=logits.device)


def _loss_dtype(z: Layout) -> str:
    double = (z.code, z.bits) == (_abi.CODE_FLOAT, 64) if isinstance(z, Exported) else z[2] == np.float64
    return "float64" if double else "float32"


def _gradient(logits: Any, z: Layout, out: Any) -> Any:
    """The array for the gradient: `out`, or new memory."""
    if out is None:
        # In the memory order of the logits, such as class-last or column-major.
        if isinstance(logits, np.ndarray):
            return np.empty_like(logits)
        return np.empty(shape_of(z), numpy_dtype(z)) if on_host(z) else logits.__array_namespace__().empty_like(logits)
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            raise ValueError("out is read-only")
    elif on_host(z):
        raise TypeError(f"out must be a NumPy array on the CPU, not {type(out).__name__}")
    return out


def _new_plan(
    classes: int, each: bool, target: Any, target2: Any, z: Layout, y: Layout, given: tuple[_Given, ...] | None, like_loss: Layout | None,
    like_gradient: Layout | None,
) -> ArrayPlan:  # fmt: skip
    """NotCollapsibleError if an input must be copied."""
    logits, targets = view("logits", z, 2), view("target", y, 1)
    demand_labels("target", targets, _shown_dtype(target, y), shape_of(y), shape_of(z))
    each_sample = shape_of_target(shape_of(z), classes)
    demand_shape("target", shape_of(y), each_sample, 1)
    extras: list[tuple[int, _abi.Tensor, c_double | None]] = []
    for place, ((_, name), layout) in enumerate(zip(EXTRAS, given or ())):
        if layout is None:
            continue
        if isinstance(layout, str):
            storage = c_double()
            tensor = _abi.Tensor(
                data=ctypes.addressof(storage), device_type=_abi.DEVICE_CPU, dtype_code=_abi.CODE_FLOAT, dtype_bits=64, dtype_lanes=1
            )
            extras.append((place, tensor, storage))
            continue
        tensor = view(name, layout, 1)
        if name == "target2":
            demand_labels(name, tensor, _shown_dtype(target2, layout), shape_of(layout), shape_of(z))
        if each or name != "grad_loss":
            demand_shape(name, shape_of(layout), each_sample, 1)
        extras.append((place, tensor, None))
    scalar = None
    if like_loss is None:
        scalar = np.empty((), _loss_dtype(z))
        loss = view("loss", (scalar.shape, scalar.strides, scalar.dtype), 1)
        loss.data = scalar.ctypes.data
    else:
        loss = view("loss", like_loss, 1)
    try:
        gradient = _abi.Tensor() if like_gradient is None else view("out", like_gradient, 2)
    except NotCollapsibleError as error:
        raise ValueError(f"out: {error}") from error
    if like_gradient is not None:
        demand_shape("out", shape_of(like_gradient), shape_of(z), 2)
    plan = ArrayPlan(logits, targets, extras, loss, gradient)
    plan.scalar = scalar
    return plan


def _shown_dtype(source: Any, layout: Layout) -> object:
    return getattr(source, "dtype", layout[:2])


def _copied(logits: Any, target: Any, extras: Extras, stream: int | None) -> tuple[Any, Any, Extras]:
    """Row-major copies of the arrays that three strides cannot describe, with a warning."""

    def fit(name: str, source: Any, keep: int) -> Any:
        if source is None or isinstance(source, _NUMBERS):
            return source
        layout, *_ = look(name, source, stream)
        try:
            view(name, layout, keep)
        except NotCollapsibleError as error:
            if not isinstance(source, np.ndarray):
                raise ValueError(f"{name}: {error}; make it contiguous") from error
            warnings.warn(f"{name} is copied: {error}", CopyWarning, stacklevel=5)
            return np.ascontiguousarray(source)
        return source

    fitted: Any = tuple(fit(name, source, 1) for (_, name), source in zip(EXTRAS, extras))
    return fit("logits", logits, 2), fit("target", target, 1), fitted
