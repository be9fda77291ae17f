"""libols through its C ABI by ctypes: as much of it as the race needs, and nothing that a call would have to pay for."""

import ctypes
from ctypes import c_double, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

import torch

ABI_VERSION = 0
OPTIONS_ADOPT_STATE = 1
FRACTION_BITS = 30
COUNTERS = 4
# dtype_code and dtype_bits, DLPack's.
DTYPES = {torch.float32: (2, 32), torch.bfloat16: (4, 16), torch.int64: (0, 64)}


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("dtype_code", c_uint8), ("dtype_bits", c_uint8),
        ("dtype_lanes", c_uint16), ("ndim", c_int32), ("shape", c_int64 * 3), ("strides", c_int64 * 3), ("reserved", c_uint64),
    ]  # fmt: skip

    @classmethod
    def of(cls, tensor):
        """A view of a tensor of up to three dimensions; the tensor must outlive it."""
        view = cls(data=tensor.data_ptr(), device_type=1, dtype_lanes=1, ndim=tensor.dim())
        view.dtype_code, view.dtype_bits = DTYPES[tensor.dtype]
        for axis in range(tensor.dim()):
            view.shape[axis], view.strides[axis] = tensor.shape[axis], tensor.stride(axis)
        return view


class Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("num_classes", c_int64), ("alpha", c_double), ("smoothing", c_double), ("momentum", c_double),
        ("freeze_above", c_double), ("min_count", c_int64), ("ignore_index", c_int64), ("initial", c_int32), ("empty_class", c_int32),
        ("reduction", c_int32), ("mode", c_int32), ("device_type", c_int32), ("device_id", c_int32), ("n_threads", c_int32), ("flags", c_uint32),
        ("class_weights", Tensor), ("initial_soft_labels", Tensor), ("soft_labels", Tensor), ("sums", Tensor), ("counts", Tensor),
        ("counters", Tensor),
    ]  # fmt: skip


class Batch(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("logits", Tensor), ("targets", Tensor), ("sample_weights", Tensor), ("targets2", Tensor), ("lam", Tensor),
        ("grad_loss", Tensor), ("target_offset", c_int64), ("stream", c_void_p), ("flags", c_uint32), ("reserved", c_uint32),
    ]  # fmt: skip


class Library:
    """The loaded library, its layouts checked."""

    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.ols_version.restype = self.c.ols_last_error.restype = ctypes.c_char_p
        self.c.ols_abi_version.restype = c_uint32
        if self.c.ols_abi_version() != ABI_VERSION:
            raise SystemExit(f"race: {path} has ABI version {self.c.ols_abi_version()}, the race was written for {ABI_VERSION}")
        self.c.ols_options_init.argtypes = self.c.ols_batch_init.argtypes = [c_void_p, c_size_t]
        self.c.ols_create.argtypes = self.c.ols_next_epoch.argtypes = [c_void_p, c_void_p]
        self.c.ols_forward.argtypes = [c_void_p] * 4
        self.c.ols_destroy.argtypes, self.c.ols_destroy.restype = [c_void_p], None
        # A wrong layout shows here: the library refuses a size that is none of the struct's, and the defaults lie where they belong.
        options, batch = self.options(), self.batch()
        defaults = (options.alpha, options.smoothing, options.min_count, options.ignore_index, options.reduction, options.device_type)
        sizes = (options.struct_size, batch.struct_size)
        if defaults != (0.5, 0.1, 1, -100, 1, 1) or sizes != (ctypes.sizeof(Options), ctypes.sizeof(Batch)):
            raise SystemExit("race: the structs of benches/race/libols.py are not those of include/ols.h")

    @property
    def version(self):
        return self.c.ols_version().decode()

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.c.ols_last_error().decode())

    def options(self):
        options = Options()
        self.check(self.c.ols_options_init(ctypes.byref(options), ctypes.sizeof(options)))
        return options

    def batch(self):
        batch = Batch()
        self.check(self.c.ols_batch_init(ctypes.byref(batch), ctypes.sizeof(batch)))
        return batch


class Criterion:
    """A criterion whose state lies in torch tensors: soft labels that are given, sums and counts of its own."""

    def __init__(self, library, soft_labels, alpha, threads):
        classes = soft_labels.shape[0]
        self.library, self.soft_labels = library, soft_labels
        self.sums = torch.zeros(classes, classes, dtype=torch.int64)
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self.counters = torch.zeros(COUNTERS, dtype=torch.int64)
        options = library.options()
        options.num_classes, options.alpha, options.n_threads, options.flags = classes, alpha, threads, OPTIONS_ADOPT_STATE
        for name in ("soft_labels", "sums", "counts", "counters"):
            setattr(options, name, Tensor.of(getattr(self, name)))
        self.handle = c_void_p()
        library.check(library.c.ols_create(ctypes.byref(options), ctypes.byref(self.handle)))

    def close(self):
        self.library.c.ols_destroy(self.handle)
        self.handle = None

    def forward(self, logits, targets):
        """The call of the race, with all that it points to made before: (function, arguments), loss, gradient. Inputs must outlive it."""
        samples, classes = logits.shape[:2]
        loss, grad = torch.zeros(()), torch.empty_like(logits)
        batch = self.library.batch()
        if logits.dim() > 2:
            batch.logits, batch.targets = Tensor.of(logits.view(samples, classes, -1)), Tensor.of(targets.view(samples, -1))
            to_grad = Tensor.of(grad.view(samples, classes, -1))
        else:
            batch.logits, batch.targets, to_grad = Tensor.of(logits), Tensor.of(targets), Tensor.of(grad)
        structs = batch, Tensor.of(loss), to_grad
        self.keep = structs, loss, grad, logits, targets
        return (self.library.c.ols_forward, (self.handle, *(c_void_p(ctypes.addressof(struct)) for struct in structs))), loss, grad
