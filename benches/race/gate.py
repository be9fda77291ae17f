"""Nobody is timed who does not compute the right thing: loss, gradient and statistics against float64, on the inputs of the race."""

import torch
import torch.nn.functional as F

from inputs import ALPHA
from peers import rows


class Truth:
    def __init__(self, inputs):
        logits, self.targets = rows(inputs.logits).double(), inputs.targets.reshape(-1)
        self.samples, classes = logits.shape
        self.log_p = F.log_softmax(logits, dim=1)
        self.inputs, p = inputs, self.log_p.exp()
        self.p = p
        self.present, where = self.targets.unique(return_inverse=True)
        right = logits.argmax(1) == self.targets
        assert int(right.sum()) == inputs.right
        self.sums = torch.zeros(len(self.present), classes, dtype=torch.float64).index_add_(0, where[right], p[right])
        self.counts = torch.zeros(len(self.present), dtype=torch.float64).index_add_(0, where, right.double())

    def expected(self, name):
        """Loss and the gradient of each sample (without the mean's 1/N)."""
        hard = torch.zeros_like(self.p).scatter_(1, self.targets[:, None], 1.0)
        classes = self.p.shape[1]
        if name == "ce":
            q = hard
        elif name == "ce_smooth":
            q = 0.9 * hard + 0.1 / classes
        elif name == "ce_prob":
            q = self.inputs.soft_labels[self.targets].double()
        else:
            q = ALPHA * hard + (1 - ALPHA) * self.inputs.soft_labels[self.targets].double()
        return float(-(q * self.log_p).sum() / self.samples), q.sum(1, keepdim=True) * self.p - q

    def check(self, name, loss, grad, statistics=None):
        """The errors found; raises where one exceeds what is allowed to the contestant."""
        narrow = self.inputs.logits.dtype == torch.bfloat16
        # PyTorch's own cross entropies keep log-softmax in bf16, if that is what they are given: allowed, it is their fastest form.
        loose = narrow and name.startswith("ce")
        # Theirs in f32 lose up to 8e-6 to sums in f32 at 10,000 classes.
        grad_bound, loss_bound = (4e-2, 2e-2) if loose else (5e-7, 2e-6) if name == "libols" else (2e-5, 1e-5)
        want_loss, want = self.expected(name)
        got = rows(grad).double().mul(self.samples)
        rounding = want.abs() * (2**-8 if narrow else 2**-23)
        errors = {
            "loss_error": abs(float(loss.detach()) - want_loss) / max(1.0, want_loss),
            "grad_error": float(((got - want).abs() - rounding).clamp_(min=0).max()),
        }
        failed = errors["loss_error"] > loss_bound or not errors["grad_error"] <= grad_bound
        if statistics is not None:
            sums, counts, by_column = statistics
            unit = 2.0**30 if sums.dtype == torch.int64 else 1.0
            total = float(sums.sum(dtype=torch.float64)) / unit
            found = (sums[:, self.present].t() if by_column else sums[self.present]).double() / unit
            errors["sums_error"] = float((found - self.sums).abs().max() / self.counts.max().clamp(min=1))
            strays = abs(total - float(found.sum())) > 1e-3 * max(1.0, total)
            failed |= strays or errors["sums_error"] > grad_bound or not torch.equal(counts[self.present].double(), self.counts)
            failed |= float(counts.sum()) != self.inputs.right
        if failed:
            raise AssertionError(f"{name} is wrong: {errors}")
        return errors
