"""The Python leg of tests/ring/run, which says what it does."""

import sys

import numpy as np
import ols

criterion = ols.Criterion(5)
criterion.load(sys.argv[1])
parts = [f"epoch {criterion.epoch} alpha {criterion.alpha:.6f} ignore_index {criterion.ignore_index}"]
parts += ["counts", *map(str, criterion.counts), "sums", *map(str, criterion.sums[1])]
parts += ["soft_labels", *(f"{bits:08x}" for bits in criterion.soft_labels[1].view(np.uint32))]
print(*parts)
criterion.save(sys.argv[2])
