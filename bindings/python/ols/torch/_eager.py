"""Autograd in eager mode: the gradient is computed with the loss, in one pass, and scaled in place once."""

from __future__ import annotations

from typing import Any

import torch

from ._compose import gradient as composed
from ._engine import NARROW, Engine, Extras


class Loss(torch.autograd.Function):
    """Loss of a batch. Of 16-bit logits the gradient is recomputed in backward, where the incoming gradient (a loss scale) is known: multiplied
    in afterwards it would meet values that were rounded, or have underflowed."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, engine: Engine, extras: Extras, flags: int) -> torch.Tensor:
        loss, ctx.gradient = engine.forward(logits, target, extras, flags, logits.dtype not in NARROW)
        ctx.engine, ctx.generation = engine, engine.generation
        # For what the saved gradient does not serve: a second backward, the gradient's gradient.
        ctx.save_for_backward(logits, target, *extras)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = ctx.gradient
        if gradient is None or torch.is_grad_enabled():
            return _recomputed(ctx, grad_loss), None, None, None, None
        ctx.gradient = None
        if grad_loss.dim():
            gradient.mul_(grad_loss.unsqueeze(1))
        elif not grad_loss.is_cpu or grad_loss.item() != 1.0:
            gradient.mul_(grad_loss)
        return gradient, None, None, None, None


def _recomputed(ctx: Any, grad_loss: torch.Tensor) -> torch.Tensor:
    logits, target, *extras = ctx.saved_tensors
    engine: Engine = ctx.engine
    if ctx.generation != engine.generation:
        raise RuntimeError(
            "the gradient cannot be computed again: next_epoch, a load or another alpha came between this loss and its backward. Run backward first"
        )
    if torch.is_grad_enabled():
        return composed(logits, target, engine.soft_labels, engine.core.settings, tuple(extras), grad_loss)
    return engine.backward(logits, target, tuple(extras), grad_loss)
