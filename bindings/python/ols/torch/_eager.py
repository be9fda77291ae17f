"""Autograd in eager mode: the gradient is computed together with the loss, and scaled in place in backward."""

from __future__ import annotations

from typing import Any

import torch

from ._compose import gradient as composed
from ._engine import NARROW, NOTHING, Engine, Extras
from ._private import call_backward_directly, direct_apply, is_batched

_is_grad_enabled = torch.is_grad_enabled
# Target, engine, extras, flags: one tuple, as every argument of a Function costs time in both passes.
Call = tuple[torch.Tensor, Engine, Extras, int]


class Loss(torch.autograd.Function):
    """The loss of a batch.

    For 16-bit logits the incoming gradient (a loss scale) must be multiplied in before the gradient is rounded: later, small values would have
    underflowed. So forward computes the gradient for the scale of the last backward, and backward recomputes it if the scale is different; the bits
    are the same. On a device, where reading the scale would have to wait, the gradient is always computed in backward.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, call: Call) -> torch.Tensor:
        target, engine, extras, flags = call
        scale = 1.0
        if logits.dtype not in NARROW:
            loss, gradient = engine.forward(logits, target, extras, flags, True)
        elif not logits.is_cpu or engine.each:
            loss, gradient = engine.forward(logits, target, extras, flags, False)
        else:
            scale = engine.scale
            given = extras if scale == 1.0 else (*extras[:3], torch.full((), scale, dtype=torch.float32, device="cpu"))
            loss, gradient = engine.forward(logits, target, given, flags, True)
        ctx.given = gradient, scale, engine, engine.generation
        # For a second backward and for double backward, which cannot use the saved gradient.
        if extras is NOTHING:
            ctx.save_for_backward(logits, target)
        else:
            ctx.save_for_backward(logits, target, *extras)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, scale, engine, generation = ctx.given
        if gradient is None or _is_grad_enabled() or is_batched(grad_loss):
            return _recomputed(ctx, grad_loss, engine, generation, None), None
        ctx.given = None, scale, engine, generation
        if gradient.dtype in NARROW:
            value = grad_loss.item()
            # NaN, which a scaler may produce, differs from itself: the gradient is recomputed.
            if value != scale:
                gradient = _recomputed(ctx, grad_loss, engine, generation, gradient)
                engine.scale = value if value - value == 0.0 else 1.0
        elif grad_loss.dim():
            gradient.mul_(grad_loss.unsqueeze(1))
        elif not grad_loss.is_cpu or grad_loss.item() != 1.0:
            gradient.mul_(grad_loss)
        return gradient, None


apply = direct_apply(Loss)
call_backward_directly(Loss)


def _recomputed(ctx: Any, grad_loss: torch.Tensor, engine: Engine, generation: int, into: torch.Tensor | None) -> torch.Tensor:
    logits, target, *others = ctx.saved_tensors
    extras: Extras = tuple(others) if others else NOTHING
    if generation != engine.generation or engine.addresses[0] != engine.soft_labels.data_ptr():
        raise RuntimeError(
            "the gradient cannot be recomputed: next_epoch, a load, a move or a change of alpha came between this loss and its backward. "
            "Run backward first"
        )
    if _is_grad_enabled() or is_batched(grad_loss):
        return composed(logits, target, engine.soft_labels, engine.core.settings, extras, grad_loss)
    return engine.backward(logits, target, extras, grad_loss, into)
