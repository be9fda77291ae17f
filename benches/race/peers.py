"""The contestants from PyTorch. Each is made for one case and returns a function that computes loss and gradient of the batch once."""

import torch
import torch.nn.functional as F

from inputs import ALPHA


def rows(tensor):
    """(N, K, ...) as rows of K: nothing to do for two dimensions, a view that is transposed for images."""
    return tensor if tensor.dim() == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


class Eager(torch.nn.Module):
    """The loss as one would write it down from the paper: a column per class, two log-softmaxes, the right samples picked by a mask."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("soft_labels", inputs.soft_labels)
        self.register_buffer("sums", inputs.sums)
        self.register_buffer("counts", inputs.counts)

    def forward(self, logits, targets):
        hard = F.cross_entropy(logits, targets)
        soft = -(self.soft_labels[:, targets].t() * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
        with torch.no_grad():
            p = F.softmax(logits, dim=1)
            right = p.argmax(dim=1) == targets
            found = targets[right]
            self.sums.index_add_(1, found, p[right].t())
            self.counts.index_add_(0, found, torch.ones_like(found, dtype=self.counts.dtype))
        return ALPHA * hard + (1 - ALPHA) * soft


def rewrite(logits, targets, blended, sums, counts):
    """The best that could be made of it in PyTorch: a row per class, hard and soft label looked up as one, one log-softmax, no mask indexing."""
    log_p = F.log_softmax(logits, dim=1)
    with torch.no_grad():
        right = (logits.argmax(dim=1) == targets).to(log_p.dtype)
        sums.index_add_(0, targets, log_p.exp().mul_(right.unsqueeze(1)))
        counts.index_add_(0, targets, right)
    return -(blended[targets] * log_p).sum() / logits.shape[0]


def contestants(inputs, compile):
    """Name to function; each returns (loss, gradient)."""
    logits = inputs.logits.detach().clone().requires_grad_()
    targets, flat = inputs.targets, inputs.targets.reshape(-1)
    soft = inputs.soft_labels
    eager = Eager(inputs)

    def step(forward):
        def run():
            loss = forward()
            return loss, torch.autograd.grad(loss, logits)[0]

        return run

    def rewritten(function):
        # 16-bit logits are widened, as autocast does for a loss.
        return step(lambda: function(rows(logits).float(), flat, inputs.blended, inputs.sums, inputs.counts))

    def probabilities():
        target = soft[targets]
        return F.cross_entropy(logits, (target if target.dim() == 2 else target.movedim(-1, 1)).to(logits.dtype))

    found = {
        "eager": step(lambda: eager(rows(logits).float(), flat)),
        "rewrite": rewritten(rewrite),
        "compiled": None,
        "ce": step(lambda: F.cross_entropy(logits, targets)),
        "ce_smooth": step(lambda: F.cross_entropy(logits, targets, label_smoothing=0.1)),
        "ce_prob": step(probabilities),
    }
    if compile:
        torch._dynamo.reset()
        found["compiled"] = rewritten(torch.compile(rewrite, dynamic=False))
    return found
