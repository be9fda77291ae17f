"""The operators `ols::forward_`, `ols::forward` and `ols::backward` of torch.library, for torch.compile and torch.export.

They take only tensors and numbers, no handle: the library's criteria for the tensors that they are given are kept for the next call.

`alpha` is a number, a constant of the compiled graph, until it is set for the first time. From then on `scheduled_alpha`, an f64 tensor with one
element on the host, holds it, because otherwise a schedule would recompile the graph for each value.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from .. import _abi
from .._core import STATE, Core
from .._settings import Settings, name_of
from ._engine import NARROW, Engine, Extras
from ._layout import describe, device_of
from ._private import current_graph_task_id

_engines: OrderedDict[tuple[Any, ...], tuple[Engine, Tensor | None]] = OrderedDict()
_engines_lock = threading.Lock()
# A model rarely has more than one criterion. Each takes little memory, as the state is in tensors.
_MOST_ENGINES = 16


def _engine(
    state: tuple[Tensor, ...], class_weights: Tensor | None, scheduled_alpha: Tensor | None, alpha: float, ignore_index: int, reduction: int
) -> Engine:
    """A criterion for these tensors, found by their addresses, which is all it uses of them."""
    alpha = alpha if scheduled_alpha is None else float(scheduled_alpha)
    key = (*(tensor.data_ptr() for tensor in state), state[0].shape, state[0].stride(), state[0].device, ignore_index, reduction)
    with _engines_lock:
        engine, weights = _engines.get(key, (None, None))
        same = (weights is None) == (class_weights is None) and (weights is None or torch.equal(weights, class_weights))  # type: ignore[arg-type]
        if engine is None or not same:
            settings = Settings(
                state[0].shape[0], alpha=alpha, smoothing=0.1, init="zero", empty_class="keep", min_count=1, momentum=0.0, freeze_above=None,
                weight=None if class_weights is None else class_weights.numpy(), ignore_index=ignore_index,
                reduction=name_of(_abi.Reduction(reduction)),
            )  # fmt: skip
            memory = {name: describe(tensor, name) for name, tensor in zip(STATE, state)}
            device = device_of(state[0], "soft_labels")
            core = Core(settings, memory, None, device=device, adopt=True, default_threads=torch.get_num_threads)
            # Without S itself, which would be kept alive here: only double backward needs it, and that is eager.
            engine = Engine(core, state[0].new_empty(0))
            _engines[key] = engine, None if class_weights is None else class_weights.clone()
            while len(_engines) > _MOST_ENGINES:
                _engines.popitem(last=False)
        _engines.move_to_end(key)
        if engine.core.settings.alpha != alpha:
            engine.core.set_alpha(alpha)
        return engine


# The arguments of all operators after the state, and those of the forward pass.
_OPTIONS = (
    "Tensor? class_weights, Tensor? sample_weight, Tensor? target2, Tensor? lam, Tensor? scheduled_alpha, float alpha, int ignore_index, "
    "int reduction"
)
_FORWARD = f"{_OPTIONS}, bool with_gradient"


@torch.library.custom_op(
    "ols::forward_", mutates_args=("sums", "counts", "counters"),
    schema=f"(Tensor logits, Tensor target, Tensor soft_labels, Tensor(a!) sums, Tensor(b!) counts, Tensor(c!) counters, {_FORWARD}) -> (Tensor, Tensor)",
)  # fmt: skip
def forward_(
    logits: Tensor, target: Tensor, soft_labels: Tensor, sums: Tensor, counts: Tensor, counters: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    """Loss and gradient (empty if not requested); updates the statistics in place."""
    # A forward within a backward pass is the recomputation of activation checkpointing.
    flags = 0 if current_graph_task_id() == -1 else _abi.BATCH_NO_UPDATE
    return _run(logits, target, (soft_labels, sums, counts, counters), flags, *options)


@torch.library.custom_op(
    "ols::forward", mutates_args=(), schema=f"(Tensor logits, Tensor target, Tensor soft_labels, {_FORWARD}) -> (Tensor, Tensor)"
)
def forward(logits: Tensor, target: Tensor, soft_labels: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient (empty if not requested). The state does not change."""
    return _run(logits, target, (soft_labels,), _abi.BATCH_NO_UPDATE, *options)


def _run(
    logits: Tensor, target: Tensor, state: tuple[Tensor, ...], flags: int, class_weights: Tensor | None, sample_weight: Tensor | None,
    target2: Tensor | None, lam: Tensor | None, scheduled_alpha: Tensor | None, alpha: float, ignore_index: int, reduction: int, with_gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    engine = _engine(state, class_weights, scheduled_alpha, alpha, ignore_index, reduction)
    loss, gradient = engine.forward(logits, target, (sample_weight, target2, lam, None), flags, with_gradient)
    return loss, logits.new_empty(0) if gradient is None else _as_promised(gradient, logits)


def _as_promised(gradient: Tensor, logits: Tensor) -> Tensor:
    """The gradient with the strides that the fake kernel promises, even if the logits were copied."""
    like = torch.empty_like(logits, device="meta")
    return gradient if gradient.stride() == like.stride() else torch.empty_like(logits).copy_(gradient)


@torch.library.custom_op(
    "ols::backward", mutates_args=(), schema=f"(Tensor logits, Tensor target, Tensor soft_labels, Tensor grad_loss, {_OPTIONS}) -> Tensor"
)
def backward(logits: Tensor, target: Tensor, soft_labels: Tensor, grad_loss: Tensor, *options: Any) -> Tensor:
    """The gradient only, multiplied by `grad_loss` before rounding."""
    class_weights, sample_weight, target2, lam, *numbers = options
    engine = _engine((soft_labels,), class_weights, *numbers)
    return _as_promised(engine.backward(logits, target, (sample_weight, target2, lam, None), grad_loss), logits)


def _fake(logits: Tensor, target: Tensor, reduction: int, with_gradient: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss = logits.new_empty(target.shape if reduction == _abi.Reduction.NONE else (), dtype=dtype)
    return loss, torch.empty_like(logits) if with_gradient else logits.new_empty(0)


@forward_.register_fake
def _(logits: Tensor, target: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return _fake(logits, target, others[-2], others[-1])


@forward.register_fake
def _(logits: Tensor, target: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return _fake(logits, target, others[-2], others[-1])


@backward.register_fake
def _(logits: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(logits)


class TracedLoss(torch.autograd.Function):
    """The operators with their gradient. A mutating operator must not have an autograd formula; here it runs below autograd.

    The gradient of 16-bit logits is computed in backward, where the incoming one is known; see `_eager.Loss`. The logits are never widened for the
    operator: a compiler could pass on values that have not been rounded to 16 bits yet, and the statistics would not be those of the caller's logits.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, soft_labels: Tensor, statistics: tuple[Tensor, Tensor, Tensor] | None,
        class_weights: Tensor | None, extras: Extras, scheduled_alpha: Tensor | None, numbers: tuple[float, int, int],
    ) -> Tensor:  # fmt: skip
        narrow = logits.dtype in NARROW
        loss, gradient = call(logits, target, soft_labels, statistics, class_weights, extras, scheduled_alpha, numbers, not narrow)
        ctx.numbers = numbers if narrow else None
        if narrow:
            ctx.save_for_backward(logits, target, soft_labels, class_weights, *extras[:3], scheduled_alpha)
        else:
            ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("double backward is not supported by the operators; eager calls outside of dispatch modes support it")
        if ctx.numbers is not None:
            logits, target, soft_labels, *options = ctx.saved_tensors
            return backward(logits, target, soft_labels, grad_loss, *options, *ctx.numbers), None, None, None, None, None, None, None
        (gradient,) = ctx.saved_tensors
        if grad_loss.dim():
            grad_loss = grad_loss.unsqueeze(1)
        return gradient * grad_loss, None, None, None, None, None, None, None


def call(
    logits: Tensor, target: Tensor, soft_labels: Tensor, statistics: tuple[Tensor, Tensor, Tensor] | None, class_weights: Tensor | None,
    extras: Extras, scheduled_alpha: Tensor | None, numbers: tuple[float, int, int], with_gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Calls the operator: with statistics, the mutating one."""
    sample_weight, target2, lam, _ = extras
    if statistics is None:
        return forward(logits, target, soft_labels, class_weights, sample_weight, target2, lam, scheduled_alpha, *numbers, with_gradient)  # type: ignore[no-any-return]
    return forward_(logits, target, soft_labels, *statistics, class_weights, sample_weight, target2, lam, scheduled_alpha, *numbers, with_gradient)  # type: ignore[no-any-return]
