"""The gradient, composed of differentiable PyTorch operations. Only used for double backward and for batches of gradients."""

from __future__ import annotations

import numpy as np
import torch

from .._abi import Reduction
from .._settings import Settings
from ._engine import Extras


def gradient(
    logits: torch.Tensor, target: torch.Tensor, soft_labels: torch.Tensor, settings: Settings, extras: Extras, grad_loss: torch.Tensor
) -> torch.Tensor:
    """`(sum_k q) p - q`, times the sample weight, the factor of the reduction and `grad_loss`; differentiable in `logits` and `grad_loss`."""
    sample_weight, target2, lam, _ = extras
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    with torch.autocast(logits.device.type, enabled=False):
        classes = settings.num_classes
        weights = np.ones(classes) if settings.class_weights is None else settings.class_weights
        weight = torch.from_numpy(weights).to(logits.device, dtype)

        def targets(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            """q with the class last, w[y], and which samples are not ignored."""
            there = labels != settings.ignore_index
            labels = torch.where(there, labels.long(), 0)
            hard = torch.nn.functional.one_hot(labels, classes).to(dtype) * weight[labels].unsqueeze(-1)
            soft = weight * soft_labels[labels].to(dtype)
            return settings.alpha * hard + (1 - settings.alpha) * soft, weight[labels], there

        q, of_class, there = targets(target)
        if target2 is not None and lam is not None:
            lam = lam.to(dtype).reshape(() if lam.numel() == 1 else lam.shape).expand(target.shape)
            q2, of_class2, there2 = targets(target2)
            q = lam.unsqueeze(-1) * q + (1 - lam).unsqueeze(-1) * q2
            of_class, there = lam * of_class + (1 - lam) * of_class2, there & there2
        value = torch.ones_like(of_class) if sample_weight is None else sample_weight.to(dtype)
        there = there & (value != 0)
        scale = torch.where(there, value, 0)
        if settings.reduction == Reduction.MEAN:
            divisor = (scale * of_class).sum()
            scale = torch.where(divisor > 0, scale / torch.where(divisor > 0, divisor, 1), 0)
        q, there = q.movedim(-1, 1), there.unsqueeze(1)
        # Before softmax as well, whose derivative would turn NaN in ignored logits into NaN.
        p = torch.softmax(torch.where(there, logits.to(dtype), 0), 1)
        result = (q.sum(1, keepdim=True) * p - q) * (scale * grad_loss.to(dtype)).unsqueeze(1)
        return torch.where(there, result, 0).to(logits.dtype)
