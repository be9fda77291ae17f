"""The inputs of a case: logits of which about 70 % are classified right, targets, and soft labels that every contestant shares."""

import dataclasses

import torch

ALPHA = 0.5
SHAPES = [(128, 10), (256, 100), (256, 1000), (4096, 1000), (1024, 10_000), (1024, 21_841)]
IMAGES = [(8, 21, 128, 128), (2, 19, 256, 512)]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclasses.dataclass
class Inputs:
    """What one case gives to all contestants. Memory that needs no copy of its own has none: at K = 21,841 a matrix takes 2 to 4 GB."""

    logits: torch.Tensor
    targets: torch.Tensor
    # S, K x K and symmetric, so that it serves those who keep a class in a column as well as those who keep it in a row.
    soft_labels: torch.Tensor
    # alpha * one-hot + (1 - alpha) * S: the whole target of a class, for those who look it up in one piece.
    blended: torch.Tensor
    # A and c of the PyTorch contestants. They add into one memory; what is in it makes no difference to the time.
    sums: torch.Tensor
    counts: torch.Tensor
    right: int

    @property
    def classes(self):
        return self.logits.shape[1]


def name_of(shape):
    return "x".join(map(str, shape))


def soft_labels(classes, device="cpu"):
    generator = torch.Generator(device=device).manual_seed(2)
    part = torch.rand(classes, generator=generator, device=device) * (0.2 / classes)
    matrix = part[:, None] + part[None, :]
    matrix.diagonal().add_(0.8)
    return matrix


def make(shape, dtype, device="cpu"):
    """Made where they are used: on the host, large shapes would take minutes."""
    generator = torch.Generator(device=device).manual_seed(1)
    classes = shape[1]
    logits = torch.randn(shape, generator=generator, device=device).mul_(2).to(dtype)
    targets = torch.randint(classes, (shape[0], *shape[2:]), generator=generator, device=device)
    right = torch.rand(targets.shape, generator=generator, device=device) < 0.7
    # The right ones exceed all others, also after rounding to 16 bits; the wrong ones lie below all others.
    value = torch.where(right, logits.amax(1) + 1, logits.amin(1) - 1)
    logits.scatter_(1, targets.unsqueeze(1), value.unsqueeze(1).to(dtype))
    soft = soft_labels(classes, device)
    blended = (1 - ALPHA) * soft
    blended.diagonal().add_(ALPHA)
    sums, counts = torch.zeros(classes, classes, device=device), torch.zeros(classes, device=device)
    return Inputs(logits, targets, soft, blended, sums, counts, int(right.sum()))
