"""`LabelSmoothingLoss`: plain label smoothing, which learns nothing and is composed of PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from .._settings import int64, number

_NOBODY = -(2**62)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class LabelSmoothingLoss(torch.nn.Module):
    """Cross entropy with the target 1 - smoothing for the class itself and smoothing/(K-1) for every other class.

    (`torch.nn.CrossEntropyLoss(label_smoothing=)` spreads smoothing/K over all classes, including the class itself.)

    Args:
        classes: K, at least 2.
        smoothing: in [0, 1].
        dim: the dimension of the classes in the logits; checked in each call.
        weight: (K), factors of the classes' terms. The mean divides by the number of samples, regardless of their weights.
    """

    weight: Tensor | None

    def __init__(self, classes: int, smoothing: float = 0.1, dim: int = -1, weight: Tensor | None = None) -> None:
        super().__init__()
        classes, smoothing, dim = int64("classes", classes), number("smoothing", smoothing), int64("dim", dim)
        if classes < 2:
            raise ValueError(f"classes = {classes} is less than 2")
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing = {smoothing} is outside [0, 1]")
        if weight is not None and not isinstance(weight, Tensor):
            raise TypeError(f"weight must be a tensor, not {type(weight).__name__}")
        if weight is not None and weight.shape != (classes,):
            raise ValueError(f"weight has shape {tuple(weight.shape)}, but ({classes},) is needed")
        self.classes, self.smoothing, self.dim = classes, smoothing, dim
        # Options are not state: the published module's state dict is empty as well.
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss: f32, or f64 for f64 logits; 0 for an empty batch. `logits` have K classes in dimension `dim`; `target` has integers and the other
        dimensions."""
        if not -logits.dim() <= self.dim < logits.dim() or logits.shape[self.dim] != self.classes:
            raise ValueError(f"logits of shape {tuple(logits.shape)} do not have {self.classes} classes in dimension {self.dim}")
        dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
        log_p = torch.log_softmax(logits, self.dim, dtype=dtype).movedim(self.dim, -1)
        if target.shape != log_p.shape[:-1]:
            raise ValueError(f"target has shape {tuple(target.shape)}, but {tuple(log_p.shape[:-1])} is needed")
        if target.dtype not in _INTEGERS:
            raise TypeError(f"target has dtype {target.dtype}, but labels are integers")
        elsewhere = self.smoothing / (self.classes - 1)
        weighed = log_p if self.weight is None else log_p * self.weight.to(dtype)
        # Every target that is not a class is an IndexError, including -100.
        own = -nll_loss(weighed.reshape(-1, self.classes), target.reshape(-1).long(), reduction="sum", ignore_index=_NOBODY)
        every = weighed.sum() if elsewhere else 0
        return -((1 - self.smoothing - elsewhere) * own + elsewhere * every) / max(target.numel(), 1)

    def extra_repr(self) -> str:
        return f"classes={self.classes}, smoothing={self.smoothing:g}, dim={self.dim}"
