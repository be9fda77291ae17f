"""libols as the race calls it: the layouts and the loader are the Python package's, and nothing is left that a call would have to pay for."""

import ctypes
from ctypes import c_void_p

import torch

from ols._abi import COUNTERS, FRACTION_BITS, OPTIONS_ADOPT_STATE
from ols._library import Handle, batch_init, check, lib, options_init, version
from ols.torch._layout import describe

__all__ = ["FRACTION_BITS", "Criterion", "Library"]


class Library:
    """The library that OLS_LIBRARY names; the package has compared its version."""

    def __init__(self):
        self.c, self.check, self.version = lib, check, version()


class Criterion:
    """A criterion whose state lies in torch tensors: soft labels that are given, sums and counts of its own."""

    def __init__(self, library, soft_labels, alpha, threads):
        classes = soft_labels.shape[0]
        self.c, self.soft_labels = library.c, soft_labels
        self.sums = torch.zeros(classes, classes, dtype=torch.int64)
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self.counters = torch.zeros(COUNTERS, dtype=torch.int64)
        options = options_init()
        options.num_classes, options.alpha, options.n_threads, options.flags = classes, alpha, threads, OPTIONS_ADOPT_STATE
        for name in ("soft_labels", "sums", "counts", "counters"):
            setattr(options, name, describe(getattr(self, name), name))
        self.owner = Handle(options)
        self.handle = c_void_p(self.owner.address)

    def close(self):
        self.owner.close()

    def forward(self, logits, targets):
        """The call of the race, with all that it points to made before: (function, arguments), loss, gradient. Inputs must outlive it."""
        loss, grad = torch.zeros(()), torch.empty_like(logits)
        batch = batch_init()
        batch.logits, batch.targets = describe(logits, "logits", 2), describe(targets, "targets", 1)
        structs = batch, describe(loss, "loss"), describe(grad, "gradient", 2)
        self.keep = structs, loss, grad, logits, targets
        return (self.c.ols_forward, (self.handle, *(c_void_p(ctypes.addressof(struct)) for struct in structs))), loss, grad
