"""A step in eager mode. What a call needs is prepared once per layout; after that, a call takes few operations in Python.

At 128 x 10 the library computes for three microseconds, so every attribute lookup counts here.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from .. import _abi, _threads
from .._core import Core
from .._library import check, lib
from .._memory import CopyWarning, Layout, NotCollapsibleError, collapsed, demand_labels, demand_shape, set_layout, shape_of_target
from .._plan import EXTRAS, Plan, Plans
from ._layout import describe

# sample_weight, target2, lam, grad_loss.
Extras = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
NOTHING: Extras = (None, None, None, None)
NARROW = frozenset((torch.float16, torch.bfloat16))
_forward, _backward, _accumulate = lib.ols_forward, lib.ols_backward, lib.ols_accumulate
_get_num_threads, _empty_like = torch.get_num_threads, torch.empty_like


class TensorPlan(Plan):
    """A plan with what it takes to allocate the loss."""

    __slots__ = ("loss_dtype", "loss_like", "loss_shape")

    def __init__(self, logits: torch.Tensor, target: torch.Tensor, extras: Extras, classes: int, each: bool) -> None:
        z, y = describe(logits, "logits", 2), describe(target, "target", 1)
        demand_labels("target", y, target.dtype, target.shape, logits.shape)
        each_sample = shape_of_target(logits.shape, classes)
        demand_shape("target", target.shape, each_sample, 1)
        views = []
        for number, ((_, name), tensor) in enumerate(zip(EXTRAS, extras)):
            if tensor is not None:
                view = describe(tensor, name, 1)
                if name == "target2":
                    demand_labels(name, view, tensor.dtype, tensor.shape, logits.shape)
                if each or name != "grad_loss":
                    demand_shape(name, tensor.shape, each_sample, 1)
                views.append((number, view, None))
        self.loss_shape = target.shape if each else torch.Size(())
        self.loss_dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
        # The losses of later calls are made like this one.
        loss = torch.empty(self.loss_shape, dtype=self.loss_dtype, device=logits.device)
        self.loss_like = None if each else loss
        gradient = _abi.Tensor.from_buffer_copy(z)
        set_layout(gradient, layout_of_gradient(logits))
        super().__init__(z, y, views, describe(loss, "loss", 1), gradient)


def layout_of_gradient(logits: torch.Tensor) -> Layout:
    """Layout of a gradient in new memory. NotCollapsibleError if overlapping logits give it another order of dimensions, which does not collapse."""
    # Only sizes and strides matter, so no memory is allocated.
    like = torch.empty_like(logits, device="meta")
    layout = collapsed(like.shape, like.stride(), 2)
    if layout is None:
        raise NotCollapsibleError(tuple(like.shape), like.stride(), "its gradient's ")
    return layout


class Engine:
    """The library's criterion for the state tensors, and the plans of its calls."""

    __slots__ = ("_index", "_on_cuda", "_plans", "addresses", "core", "each", "generation", "scale", "soft_labels")

    def __init__(self, core: Core, soft_labels: torch.Tensor, *statistics: torch.Tensor) -> None:
        self.core, self.soft_labels = core, soft_labels
        # The memory that the library has. PyTorch can exchange the memory of a tensor, for example to send it to another process.
        self.addresses = tuple(tensor.data_ptr() for tensor in (soft_labels, *statistics))
        # Incremented by everything that changes a recomputed gradient: the end of an epoch, a load, alpha.
        self.generation = 0
        # For 16-bit logits: the gradient of the loss in the last backward. The next forward computes its gradient for this scale.
        self.scale = 1.0
        self._plans: Plans[TensorPlan] = Plans()
        self.each = core.settings.reduction == _abi.Reduction.NONE
        self._on_cuda, self._index = soft_labels.is_cuda, soft_labels.get_device()

    def stream(self) -> int | None:
        """PyTorch's current stream."""
        return int(torch.cuda.current_stream(self._index).cuda_stream) if self._on_cuda else None

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, extras: Extras, flags: int, with_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss and, if requested, the gradient in new memory."""
        core = self.core
        with core.lock:
            plan = self._plan(logits, target, extras)
            if plan is not None:
                # The fastest way to make a scalar is to make one like another.
                like = plan.loss_like
                loss = logits.new_empty(plan.loss_shape, dtype=plan.loss_dtype) if like is None else _empty_like(like)
                plan.loss_data.value = loss.data_ptr()
                plan.flags.value = flags
                gradient, to_gradient = None, None
                if with_gradient:
                    gradient = _empty_like(logits)
                    plan.gradient_data.value, to_gradient = gradient.data_ptr(), plan.gradient_address
                # The number of threads is fixed when the handle is created; see Core.current.
                address = core.handle._address if core.threads == _threads.wanted(_get_num_threads()) else core.current()
                status = _forward(address, plan.address, plan.loss_address, to_gradient)
                if status:
                    check(status)
                return loss, gradient
        return self.forward(*copied(logits, target, extras), flags, with_gradient)

    def backward(
        self, logits: torch.Tensor, target: torch.Tensor, extras: Extras, grad_loss: torch.Tensor, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The gradient only, recomputed, multiplied by `grad_loss` before rounding; written to `into`, a gradient of these logits, or to new memory."""
        core, extras = self.core, (*extras[:3], grad_loss)
        with core.lock:
            plan = self._plan(logits, target, extras)
            if plan is not None:
                gradient = torch.empty_like(logits) if into is None else into
                plan.gradient_data.value, plan.flags.value = gradient.data_ptr(), 0
                check(_backward(core.current(), plan.address, None, plan.gradient_address))
                return gradient
        # `into` belongs to a copy as well, and has its layout.
        logits, target, extras = copied(logits, target, extras)
        return self.backward(logits, target, extras, grad_loss if extras[3] is None else extras[3], into)

    def _plan(self, logits: torch.Tensor, target: torch.Tensor, extras: Extras) -> TensorPlan | None:
        """The plan for this layout with the addresses of these tensors, or None if they must be copied. The caller holds the lock."""
        key: tuple[Any, ...] = (
            logits.shape, logits.stride(), logits.dtype, logits.device, logits.is_neg(), target.shape, target.stride(), target.dtype, target.device,
        )  # fmt: skip
        if extras is not NOTHING:
            key += tuple(
                None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.is_neg()) for tensor in extras
            )
        plans = self._plans
        plan = plans.last if key == plans.key else plans.find(key)
        if plan is None:
            try:
                plan = plans.add(key, TensorPlan(logits, target, extras, self.core.settings.num_classes, self.each))
            except NotCollapsibleError:
                return None
        plan.logits_data.value = logits.data_ptr()
        plan.targets_data.value = target.data_ptr()
        for number, data in plan.extras:
            data.value = extras[number].data_ptr()  # type: ignore[union-attr]
        if self._on_cuda:
            plan.stream.value = self.stream()
        return plan

    def _run(self, function: Any, logits: torch.Tensor, target: torch.Tensor, extras: Extras, flags: int, *outputs: None) -> None:
        """A call without outputs."""
        with self.core.lock:
            plan = self._plan(logits, target, extras)
            if plan is not None:
                plan.flags.value = flags
                check(function(self.core.current(), plan.address, *outputs))
                return
        self._run(function, *copied(logits, target, extras), flags, *outputs)

    def run_inplace(self, logits: torch.Tensor, target: torch.Tensor, extras: Extras, flags: int, loss: torch.Tensor) -> None:
        """The loss, and the gradient in place of the logits. ValueError if the logits do not collapse, as a copy would not be the logits."""
        with self.core.lock:
            plan = self._plan(logits, target, extras)
            if plan is None:
                raise NotCollapsibleError(tuple(logits.shape), logits.stride())
            plan.flags.value, plan.loss_data.value = flags, loss.data_ptr()
            check(_forward(self.core.current(), plan.address, plan.loss_address, plan.address + _abi.Batch.logits.offset))

    def accumulate(self, probabilities: torch.Tensor, target: torch.Tensor, extras: Extras, flags: int) -> None:
        self._run(_accumulate, probabilities, target, extras, flags)

    def take_back(self, logits: torch.Tensor, target: torch.Tensor, extras: Extras) -> None:
        self._run(_forward, logits, target, extras, _abi.BATCH_TAKE_BACK, None, None)


def _level_of_user() -> int:
    """The `stacklevel` for a warning of the caller: the line that called this package, directly or through PyTorch."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("ols", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def copied(logits: torch.Tensor, target: torch.Tensor, extras: Extras) -> tuple[torch.Tensor, torch.Tensor, Extras]:
    """Row-major copies of the tensors that three strides cannot describe, or whose gradient they cannot, with a warning."""

    def fit(tensor: torch.Tensor | None, name: str, keep: int) -> torch.Tensor | None:
        try:
            if tensor is not None:
                describe(tensor, name, keep)
                if name == "logits":
                    layout_of_gradient(tensor)
        except NotCollapsibleError as error:
            warnings.warn(f"{name} is copied: {error}", CopyWarning, stacklevel=_level_of_user())
            return tensor.contiguous() if tensor is not None else None
        return tensor

    names = [name for _, name in EXTRAS]
    fitted = tuple(fit(tensor, name, 1) for tensor, name in zip(extras, names))
    return fit(logits, "logits", 2), fit(target, "target", 1), fitted  # type: ignore[return-value]
