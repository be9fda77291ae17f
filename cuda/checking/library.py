"""libols through its C ABI with ctypes, for PyTorch tensors on any device. Structs and constants are those of the
Python package, which a test compares with the header. Only that file is loaded, since the package itself requires
NumPy and looks for a library of its own."""

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import time
from ctypes import c_int32, c_size_t, c_void_p


def load_abi():
    path = pathlib.Path(__file__).resolve().parents[2] / "bindings" / "python" / "ols" / "_abi.py"
    spec = importlib.util.spec_from_file_location("ols_abi", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


abi = load_abi()
Tensor, Report = abi.Tensor, abi.Report
NO_UPDATE, TAKE_BACK = abi.BATCH_NO_UPDATE, abi.BATCH_TAKE_BACK
REDUCTIONS = {"none": abi.Reduction.NONE, "mean": abi.Reduction.MEAN, "sum": abi.Reduction.SUM}


class Error(RuntimeError):
    """A status other than OK, with the library's message."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def dtypes():
    """PyTorch dtypes and their names in the ABI."""
    import torch

    return {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
            torch.uint8: "U8"}  # fmt: skip


def code_and_bits(name):
    """DLPack's type code and bits for the name of a dtype."""
    number = abi.Dtype[name]
    return number & 0xFF, number >> 8


def view(tensor):
    """A view of a PyTorch tensor of up to three dimensions; the tensor must outlive it. None: not given."""
    if tensor is None:
        return Tensor()
    found = Tensor(data=tensor.data_ptr(), device_type=abi.DEVICE_CUDA if tensor.is_cuda else abi.DEVICE_CPU, dtype_lanes=1, ndim=tensor.dim())
    found.device_id = tensor.device.index or 0
    found.dtype_code, found.dtype_bits = code_and_bits(dtypes()[tensor.dtype])
    for axis in range(tensor.dim()):
        found.shape[axis], found.strides[axis] = tensor.shape[axis], tensor.stride(axis)
    return found


@contextlib.contextmanager
def using(path=None):
    """Criteria created in this context use the kernels of `path`; if None, the default for the device."""
    before = os.environ.pop("OLS_CUDA_PATH", None)
    if path is not None:
        os.environ["OLS_CUDA_PATH"] = path
    try:
        yield
    finally:
        os.environ.pop("OLS_CUDA_PATH", None)
        if before is not None:
            os.environ["OLS_CUDA_PATH"] = before


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
        if defaults != (0.5, 0.1, 1, -100, 1, 1) or sizes != (ctypes.sizeof(abi.Options), ctypes.sizeof(abi.Batch)):
            raise SystemExit("cuda/check: the structs of bindings/python/ols/_abi.py are not those of the library: build both from one commit")

    @property
    def version(self):
        return self.c.ols_version().decode()

    def check(self, status):
        if status != 0:
            raise Error(status, self.c.ols_last_error().decode())

    def load(self, path=None, device_type=abi.DEVICE_CUDA):
        """Creates a criterion with these kernels; returns the seconds that it took, most of them for loading the
        kernels and, without machine code for the device, compiling them. The criterion is kept, so that the kernels
        stay loaded."""
        raw, handle, start = self.options(), c_void_p(), time.perf_counter()
        raw.num_classes, raw.device_type = 2, device_type
        with using(path):
            self.check(self.c.ols_create(ctypes.byref(raw), ctypes.byref(handle)))
        return round(time.perf_counter() - start, 2)

    def options(self):
        options = abi.Options()
        self.check(self.c.ols_options_init(ctypes.byref(options), ctypes.sizeof(options)))
        return options

    def batch(self):
        batch = abi.Batch()
        self.check(self.c.ols_batch_init(ctypes.byref(batch), ctypes.sizeof(batch)))
        return batch


class Criterion:
    """A criterion whose state is in PyTorch tensors on `device`."""

    def __init__(self, library, classes, device, *, soft_labels=None, class_weights=None, **options):
        import torch

        self.library, self.classes, self.device = library, classes, torch.device(device)
        given = soft_labels is not None
        self.soft_labels = soft_labels if given else torch.empty(classes, classes, device=device)
        self.sums = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.counters = torch.zeros(abi.COUNTERS, dtype=torch.int64, device=device)
        raw = library.options()
        raw.num_classes, raw.flags = classes, abi.OPTIONS_ADOPT_STATE if given else 0
        raw.device_type, raw.device_id = (abi.DEVICE_CUDA, self.device.index or 0) if self.device.type == "cuda" else (abi.DEVICE_CPU, 0)
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
        """A forward call with all its structs built in advance: (function, arguments). The tensors must outlive it."""
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
