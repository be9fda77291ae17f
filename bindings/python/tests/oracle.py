"""The loss and its statistics in plain float64 operations of PyTorch, from the formulas in include/ols.h."""

import torch


def rows(tensor):
    return tensor if tensor.dim() == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def loss(logits, target, soft_labels, alpha, *, weight=None, sample_weight=None, target2=None, lam=None, ignore_index=-100, reduction="mean"):
    """Differentiable in logits, which are f64."""
    z = rows(logits)
    k = z.shape[1]
    y = target.reshape(-1).long()
    w = torch.ones(k, dtype=torch.float64) if weight is None else weight.double()
    s = soft_labels.double()

    def q_of(labels):
        safe = labels.clamp(0, k - 1)
        hard = torch.nn.functional.one_hot(safe, k).double() * w[safe][:, None]
        return alpha * hard + (1 - alpha) * w * s[safe], w[safe]

    q, divisor = q_of(y)
    there = y != ignore_index
    if target2 is not None:
        y2 = target2.reshape(-1).long()
        share = torch.as_tensor(lam, dtype=torch.float64).expand(target.shape).reshape(-1)
        q2, divisor2 = q_of(y2)
        q = share[:, None] * q + (1 - share)[:, None] * q2
        divisor = share * divisor + (1 - share) * divisor2
        there &= y2 != ignore_index
    v = torch.ones_like(divisor) if sample_weight is None else sample_weight.reshape(-1).double()
    v = torch.where(there, v, 0)
    each = v * -(q * torch.log_softmax(z, 1)).sum(1)
    if reduction == "none":
        return each.reshape(target.shape)
    if reduction == "sum":
        return each.sum()
    return each.sum() / (v * divisor).sum()


def statistics(logits, target, ignore_index=-100):
    """Summed probabilities and counts of the samples that are classified right."""
    z = rows(logits).double()
    y = target.reshape(-1).long()
    right = (z.argmax(1) == y) & (y != ignore_index)
    sums = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64).index_add_(0, y[right], torch.softmax(z[right], 1))
    return sums, torch.bincount(y[right], minlength=z.shape[1])
