"""What libols computes, in PyTorch and f64: loss, gradient and statistics of a batch of rows (N, K). Written from the
definitions in src/reference.rs, one line per definition."""

import torch

UNITS = 2.0**30


def loss_and_gradient(z, targets, soft_labels, *, alpha=0.5, reduction="mean", class_weights=None, sample_weights=None, targets2=None, lam=None,
                      grad_loss=None, ignore_index=-100, target_offset=0):  # fmt: skip
    """Takes rows; returns a dict of the reduced loss, the losses per sample (times v), the gradient, the samples that
    count for the statistics, and what these add."""
    z = z.double()
    n, classes = z.shape
    one = torch.ones((), dtype=torch.float64, device=z.device)
    w = one.expand(classes) if class_weights is None else class_weights.double()
    v = one.expand(n) if sample_weights is None else sample_weights.double()
    lam = one.expand(n) if lam is None else lam.double().expand(n)
    second = targets if targets2 is None else targets2
    ignored = (targets == ignore_index) | (second == ignore_index)
    y, y2 = ((t.long() - target_offset) for t in (targets, second))
    in_range = ((y >= 0) & (y < classes) | (targets == ignore_index)) & ((y2 >= 0) & (y2 < classes) | (second == ignore_index))
    takes_part = ~ignored & in_range & (v != 0)
    y, y2 = torch.where(takes_part, y, 0), torch.where(takes_part, y2, 0)
    v = torch.where(takes_part, v, 0)

    def q_of(t):
        q = (1 - alpha) * w * soft_labels[t].double()
        q[torch.arange(n, device=z.device), t] += alpha * w[t]
        return q

    q = lam[:, None] * q_of(y) + (1 - lam)[:, None] * q_of(y2)
    finite = ~(z.isnan().any(1) | (z == torch.inf).any(1) | (z == -torch.inf).all(1))
    log_p = torch.log_softmax(z, 1)
    p = log_p.exp()
    each = -(torch.where(q == 0, 0.0, q * log_p)).sum(1)
    gradient = q.sum(1, keepdim=True) * p - q
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=z.device)
    each, gradient = torch.where(finite, each, nan), torch.where(finite[:, None], gradient, nan)
    weight = lam * w[y] + (1 - lam) * w[y2]
    divisor = (v * weight).sum() if reduction == "mean" else one
    silent = divisor == 0
    factor = torch.where(takes_part & ~silent, v / divisor, 0)
    incoming = one if grad_loss is None else grad_loss.double()
    losses = torch.where(takes_part & ~silent, v * each, 0)
    gradient = torch.where((takes_part & ~silent)[:, None], gradient * (factor * incoming)[:, None], 0)
    reduced = torch.where(silent, 0, losses.sum() / divisor)

    counted = torch.where(lam >= 0.5, y, y2)
    first_largest = (z == z.amax(1, keepdim=True)).long().argmax(1)
    right = takes_part & finite & (first_largest == counted)
    return {
        "loss": losses if reduction == "none" else reduced, "gradient": gradient, "factor": (factor * incoming).abs(), "losses": losses,
        "right": right, "counted": counted, "p": p, "skipped": int((takes_part & ~finite).sum()), "divisor": divisor,
        "out_of_range": int((~in_range).sum()),
    }  # fmt: skip


def statistics(found, classes):
    """The classes with samples, their rows of A in units of 2^-30 (each p rounded in f64), and c."""
    right = found["right"]
    present, row = found["counted"][right].unique(return_inverse=True)
    sums = torch.zeros(len(present), classes, dtype=torch.int64, device=right.device)
    sums.index_add_(0, row, (found["p"][right] * UNITS).round().long())
    return present, sums, torch.bincount(found["counted"][right], minlength=classes)


def next_soft_labels(soft_labels, sums, counts):
    """S of the next epoch with the default policies: the rows of measured classes become means, the others stay."""
    totals = sums.sum(1, keepdim=True)
    measured = (counts > 0)[:, None] & (totals > 0)
    return torch.where(measured, (sums.double() / totals.double()).float(), soft_labels)
