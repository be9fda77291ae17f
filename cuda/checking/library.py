"""libols through its C ABI by ctypes, with PyTorch's tensors on any device."""

import ctypes
from ctypes import c_double, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

NO_UPDATE, TAKE_BACK = 1, 2
COUNTERS = 4
TRAIN, EVAL = 0, 1
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("dtype_code", c_uint8), ("dtype_bits", c_uint8),
        ("dtype_lanes", c_uint16), ("ndim", c_int32), ("shape", c_int64 * 3), ("strides", c_int64 * 3), ("reserved", c_uint64),
    ]  # fmt: skip


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


class Report(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t)] + [
        (name, c_int64)
        for name in (
            "epoch", "rows_measured", "rows_kept", "rows_uniform", "rows_initial", "rows_one_hot", "rows_zero", "rows_frozen",
            "samples_accumulated", "samples_skipped", "classes_full", "targets_out_of_range", "running_epoch", "running_samples_accumulated",
            "running_samples_skipped", "running_classes_full", "running_targets_out_of_range",
        )
    ]  # fmt: skip


class Error(RuntimeError):
    """A status that is not OK, with the library's text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def dtypes():
    import torch

    return {torch.float32: (2, 32), torch.float64: (2, 64), torch.float16: (2, 16), torch.bfloat16: (4, 16),
            torch.int64: (0, 64), torch.int32: (0, 32), torch.uint8: (1, 8)}  # fmt: skip


def view(tensor):
    """A view of a torch tensor of up to three dimensions; the tensor must outlive it. None: not given."""
    if tensor is None:
        return Tensor()
    found = Tensor(data=tensor.data_ptr(), device_type=2 if tensor.is_cuda else 1, dtype_lanes=1, ndim=tensor.dim())
    found.device_id = tensor.device.index or 0
    found.dtype_code, found.dtype_bits = dtypes()[tensor.dtype]
    for axis in range(tensor.dim()):
        found.shape[axis], found.strides[axis] = tensor.shape[axis], tensor.stride(axis)
    return found


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.ols_version.restype = self.c.ols_last_error.restype = ctypes.c_char_p
        self.c.ols_options_init.argtypes = self.c.ols_batch_init.argtypes = [c_void_p, c_size_t]
        self.c.ols_create.argtypes = self.c.ols_next_epoch.argtypes = self.c.ols_soft_labels.argtypes = [c_void_p, c_void_p]
        self.c.ols_statistics.argtypes = self.c.ols_accumulate.argtypes = [c_void_p, c_void_p]
        self.c.ols_forward.argtypes = self.c.ols_backward.argtypes = [c_void_p] * 4
        self.c.ols_report.argtypes = self.c.ols_set_soft_labels.argtypes = [c_void_p] * 3
        self.c.ols_set_mode.argtypes = [c_void_p, c_int32]
        self.c.ols_destroy.argtypes, self.c.ols_destroy.restype = [c_void_p], None
        options, batch = self.options(), self.batch()
        defaults = (options.alpha, options.smoothing, options.min_count, options.ignore_index, options.reduction, options.device_type)
        sizes = (options.struct_size, batch.struct_size)
        if defaults != (0.5, 0.1, 1, -100, 1, 1) or sizes != (ctypes.sizeof(Options), ctypes.sizeof(Batch)):
            raise SystemExit("cuda/check: the structs of cuda/checking/library.py are not those of include/ols.h")

    @property
    def version(self):
        return self.c.ols_version().decode()

    def check(self, status):
        if status != 0:
            raise Error(status, self.c.ols_last_error().decode())

    def options(self):
        options = Options()
        self.check(self.c.ols_options_init(ctypes.byref(options), ctypes.sizeof(options)))
        return options

    def batch(self):
        batch = Batch()
        self.check(self.c.ols_batch_init(ctypes.byref(batch), ctypes.sizeof(batch)))
        return batch


class Criterion:
    """A criterion whose state lies in torch tensors on `device`."""

    def __init__(self, library, classes, device, *, soft_labels=None, class_weights=None, **options):
        import torch

        self.library, self.classes, self.device = library, classes, torch.device(device)
        given = soft_labels is not None
        self.soft_labels = soft_labels if given else torch.empty(classes, classes, device=device)
        self.sums = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.counters = torch.zeros(COUNTERS, dtype=torch.int64, device=device)
        raw = library.options()
        raw.num_classes, raw.flags = classes, int(given)  # adopt
        raw.device_type, raw.device_id = (2, self.device.index or 0) if self.device.type == "cuda" else (1, 0)
        for name, value in options.items():
            setattr(raw, name, REDUCTIONS[value] if name == "reduction" else value)
        if class_weights is not None:
            class_weights = class_weights.to("cpu", torch.float64).contiguous()
        raw.class_weights = view(class_weights)
        for name in ("soft_labels", "sums", "counts", "counters"):
            setattr(raw, name, view(getattr(self, name)))
        self.handle = c_void_p()
        library.check(library.c.ols_create(ctypes.byref(raw), ctypes.byref(self.handle)))

    def stream(self):
        import torch

        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else None

    def raw_batch(self, logits, targets, *, flags=0, target_offset=0, **others):
        batch = self.library.batch()
        batch.logits, batch.targets, batch.flags, batch.target_offset, batch.stream = view(logits), view(targets), flags, target_offset, self.stream()
        for name, tensor in others.items():
            setattr(batch, name, view(tensor))
        return batch

    def forward(self, logits, targets, loss=None, grad=None, **others):
        batch = self.raw_batch(logits, targets, **others)
        loss, grad = (None if it is None else ctypes.byref(view(it)) for it in (loss, grad))
        self.library.check(self.library.c.ols_forward(self.handle, ctypes.byref(batch), loss, grad))

    def backward(self, logits, targets, grad, **others):
        batch = self.raw_batch(logits, targets, **others)
        self.library.check(self.library.c.ols_backward(self.handle, ctypes.byref(batch), None, ctypes.byref(view(grad))))

    def accumulate(self, probabilities, targets, **others):
        batch = self.raw_batch(probabilities, targets, **others)
        self.library.check(self.library.c.ols_accumulate(self.handle, ctypes.byref(batch)))

    def prepared(self, logits, targets, loss, grad):
        """A forward call with all that it points to made before: (function, arguments). Tensors must outlive it."""
        structs = self.raw_batch(logits, targets), view(loss), view(grad)
        self.keep = (*getattr(self, "keep", ()), structs)
        return self.library.c.ols_forward, (self.handle, *(c_void_p(ctypes.addressof(struct)) for struct in structs))

    def next_epoch(self):
        self.library.check(self.library.c.ols_next_epoch(self.handle, self.stream()))

    def set_mode(self, mode):
        self.library.check(self.library.c.ols_set_mode(self.handle, mode))

    def report(self):
        report = Report(struct_size=ctypes.sizeof(Report))
        self.library.check(self.library.c.ols_report(self.handle, self.stream(), ctypes.byref(report)))
        return report

    def close(self):
        self.library.c.ols_destroy(self.handle)
        self.handle = None
