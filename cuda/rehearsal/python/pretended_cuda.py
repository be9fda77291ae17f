"""torch.cuda without a GPU, for the rehearsal of cuda/check.

Tensors "on cuda" are host tensors in memory of the stand-in for the driver, which libols takes for device memory.
PyTorch's arithmetic is done by its CPU operators; libols' kernels run in the stand-in's emulator; streams and graphs
are those of the stand-in. What a GPU would reject is rejected: operators on tensors of two devices, synchronisation
during a capture or under set_sync_debug_mode, and calls that the real torch.cuda would not accept.

A tensor is on the device if the stand-in owns its address. Times measured here are meaningless."""

import ctypes
import inspect
import os
import time
import types
import unittest.mock

import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
# Shared memory per block in bytes: little, so that rows of a few thousand classes do not fit.
SHARED = 16 * 1024
# Operators whose result the host has to wait for.
WAITING = {"item", "tolist", "nonzero", "unique", "bincount", "__bool__", "__int__", "__float__", "__index__", "equal", "masked_select", "repeat_interleave"}
# Properties of a tensor that can be read without touching its memory.
PROPERTIES = {"shape", "dtype", "layout", "requires_grad", "ndim", "is_leaf", "grad_fn", "grad"}
LOOKS = {"stride", "size", "dim", "numel", "element_size", "data_ptr", "storage_offset", "is_contiguous", "requires_grad_", "untyped_storage"}


class Driver:
    """The part of the stand-in that torch.cuda needs."""

    def __init__(self):
        self.c = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
        self.c.standin_get.restype = ctypes.c_longlong
        self.c.standin_set.argtypes = [ctypes.c_char_p, ctypes.c_longlong]
        self.c.standin_set(b"shared_limit", SHARED)
        self.call("cuInit", 0)
        self.context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name, *arguments):
        if status := getattr(self.c, name)(*arguments):
            raise RuntimeError(f"CUDA error: the stand-in's {name} gives {status}")

    def get(self, name):
        return self.c.standin_get(name.encode())

    def owns(self, address):
        kind, number = ctypes.c_uint(), (ctypes.c_int * 1)(2)  # MEMORY_TYPE
        to = (ctypes.c_void_p * 1)(ctypes.addressof(kind))
        self.call("cuPointerGetAttributes", 1, number, to, ctypes.c_uint64(address))
        return kind.value == 2


class State:
    """The state that PyTorch keeps for the device."""

    def __init__(self):
        self.driver = Driver()
        self.allocator = ctypes.CDLL(os.environ["REHEARSAL_ALLOCATOR"])
        self.allocator.pretend_begin(ctypes.c_void_p(self.driver.c._handle), self.driver.context)
        self.strict, self.capturing = False, False
        self.stream = None  # the default stream

    def wait(self):
        # The CPU's operators have completed when they return, in a capture as well, and are not captured.
        if not self.capturing:
            self.driver.call("cuCtxSynchronize")

    def memory_of_device(self, wanted):
        state = self

        class Switched:
            def __enter__(self):
                self.before = state.allocator.pretend_on_device(int(wanted))

            def __exit__(self, *_):
                state.allocator.pretend_on_device(self.before)

        return Switched()

    def refuse_waiting(self, name):
        if self.strict:
            raise RuntimeError(f"called a synchronizing CUDA operation: {name}")
        if self.capturing:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {name}")


state = None


def tensors_in(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def on_device(tensor):
    # By the storage, since an empty tensor has no address.
    return state.driver.owns(tensor.untyped_storage().data_ptr())


def as_device(value):
    """The device that an argument names, or None."""
    if isinstance(value, torch.device):
        return value
    return torch.device(value) if isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda") else None


class Operators(TorchFunctionMode):
    """Runs each operator on the memory where the real one would run."""

    def __torch_function__(self, function, kinds, arguments=(), options=None):
        options = dict(options or {})
        name = getattr(function, "__name__", "")
        if name in ("__get__", "__set__"):
            name = function.__self__.__name__
            if name in ("device", "is_cuda"):
                there = on_device(arguments[0])
                return there if name == "is_cuda" else DEVICE if there else HOST
            if name in PROPERTIES:
                return function(*arguments, **options)
        if name in LOOKS:
            return function(*arguments, **options)
        if name in ("to", "cpu", "cuda", "pin_memory"):
            return self.move(function, name, *arguments, **options)
        wanted = as_device(options.pop("device", None))
        there = self.place(name, arguments, options, wanted)
        if options.get("generator") is not None and (options["generator"].of_device or HOST).type != there.type:
            raise RuntimeError(f"Expected a '{there.type}' device type for generator")
        given = list(tensors_in((*arguments, *options.values())))
        if any(map(on_device, given)):
            if name in WAITING or (name in ("__getitem__", "__setitem__") and any(it.dtype == torch.bool for it in tensors_in(arguments[1:2]))):
                state.refuse_waiting(name)
            state.wait()
        with state.memory_of_device(there.type == "cuda"):
            return function(*arguments, **options)

    def place(self, name, arguments, options, wanted):
        """The device on which an operator runs; raises if its tensors are on different devices."""
        given = list(tensors_in((*arguments, *options.values())))
        devices = {DEVICE if on_device(it) else HOST for it in given}
        first = DEVICE if given and on_device(given[0]) else HOST
        if name in ("copy_", "__getitem__", "__setitem__"):
            if name == "__getitem__" and first == HOST and len(devices) > 1:
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            devices = {first}
        elif len(devices) > 1:
            # A scalar in host memory may be combined with tensors on any device.
            devices = {DEVICE if on_device(it) else HOST for it in given if it.dim()} or {DEVICE}
        if len(devices) > 1:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})")
        return wanted or (devices.pop() if devices else HOST)

    def move(self, function, name, tensor, *arguments, **options):
        there = on_device(tensor)
        if name in ("cuda", "cpu", "pin_memory"):
            to, dtype = DEVICE if name == "cuda" else HOST, tensor.dtype
        else:
            other = [it.device for it in tensors_in(arguments)]
            to = [it for it in map(as_device, (*arguments, *other, options.get("device"))) if it] or [DEVICE if there else HOST]
            dtype = [it for it in (*arguments, options.get("dtype")) if isinstance(it, torch.dtype)] or [tensor.dtype]
            to, dtype = to[0], dtype[0]
            if unknown := set(options) - {"device", "dtype", "copy", "non_blocking"}:
                raise TypeError(f"to: {unknown}")
        moves = there != (to.type == "cuda")
        if (there and moves) or (moves and state.capturing):
            state.refuse_waiting(name)
        if there or moves:
            state.wait()
        with state.memory_of_device(to.type == "cuda"):
            return tensor.to(dtype, copy=moves or bool(options.get("copy")) or name == "pin_memory")


def as_real(real):
    """Decorates a replacement of `real`, which then accepts exactly the arguments that `real` accepts."""

    def wrap(function):
        signature = inspect.signature(real)

        def checked(*arguments, **options):
            given = signature.bind(*arguments, **options)
            given.apply_defaults()
            return function(**given.arguments)

        return checked

    return wrap


def only_what_is_real(kind, real):
    """Checks a replacement of the class `real`: it must not have a name that the real one lacks."""
    for name in vars(kind):
        if not name.startswith("_"):
            assert hasattr(real, name), f"{real.__name__} has no {name}"
    return kind


class Stream:
    def __init__(self, device=None, priority=0):
        handle = ctypes.c_void_p()
        state.driver.call("cuStreamCreate", ctypes.byref(handle), 1)
        self.cuda_stream = handle.value

    def wait_stream(self, stream):
        assert hasattr(stream, "cuda_stream")

    def synchronize(self):
        state.wait()


class DefaultStream(Stream):
    cuda_stream = 0

    def __init__(self):
        pass


class Event:
    def __init__(self, enable_timing=False, blocking=False, interprocess=False, external=False):
        self._timing, self._time, self._waits = enable_timing, None, None

    def record(self, stream=None):
        self._time, self._waits = time.perf_counter(), state.driver.get("synchronisations")

    def query(self):
        """Whether anything has synchronised since."""
        return state.driver.get("synchronisations") != self._waits

    def synchronize(self):
        state.refuse_waiting("Event.synchronize")
        state.wait()
        self._time = self._time and time.perf_counter()

    def elapsed_time(self, end_event):
        if not (self._timing and end_event._timing and self._time and end_event._time):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True' and be recorded.")
        return (end_event._time - self._time) * 1e3


class CUDAGraph:
    def __init__(self, keep_graph=False):
        self._graph = None

    def capture_begin(self, pool=None, capture_error_mode="global", check_input_liveness=False):
        state.driver.call("cuStreamBeginCapture_v2", ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), 0)
        state.capturing = True

    def capture_end(self):
        state.capturing, self._graph = False, ctypes.c_void_p()
        state.driver.call("cuStreamEndCapture", ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), ctypes.byref(self._graph))

    def replay(self):
        state.driver.call("cuGraphLaunch", self._graph, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))


class StreamContext:
    def __init__(self, stream):
        self.chosen = stream

    def __enter__(self):
        self.before, state.stream = state.stream, self.chosen

    def __exit__(self, *_):
        state.stream = self.before


class Capture:
    """The replacement of `torch.cuda.graph`."""

    def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global", **_):
        self.graph, self.context = cuda_graph, StreamContext(stream or Stream())

    def __enter__(self):
        torch.cuda.synchronize()
        self.context.__enter__()
        self.graph.capture_begin()

    def __exit__(self, *_):
        self.graph.capture_end()
        self.context.__exit__()


class Generator(torch.Generator):
    """Claims its device, but is always on the host."""

    of_device = None

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.of_device = torch.device(device)
        return made


def properties():
    found = types.SimpleNamespace(name="no GPU: a rehearsal", major=9, minor=0, multi_processor_count=132, total_memory=80 * 10**9,
                                  shared_memory_per_block_optin=SHARED)  # fmt: skip
    for name in vars(found):
        assert hasattr(torch._C._CudaDeviceProperties, name), name
    return found


def compile_without_a_compiler(real):
    """Replaces torch.compile: traces the graph and runs it eagerly, in device memory."""

    def compiled(model=None, **options):
        inner = real(model, backend="eager", **options)

        def call(*arguments):
            state.wait()
            # Dynamo saves the random state of every device that it believes to exist.
            with state.memory_of_device(True), torch._C.DisableTorchFunction(), unittest.mock.patch("torch.cuda.is_available", lambda: False):
                return inner(*arguments)

        return call

    return compiled


def synchronize():
    state.refuse_waiting("synchronize")
    state.wait()


def set_strict(debug_mode):
    assert debug_mode in (0, 1, 2, "default", "warn", "error"), debug_mode
    state.strict = debug_mode in (2, "error")


def begin():
    global state
    state = State()
    cuda, default = torch.cuda, DefaultStream()
    limit = 1 << 40
    for name, function in {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0, "empty_cache": lambda: None,
        "get_device_properties": lambda device: properties(), "get_device_capability": lambda device: (9, 0),
        "synchronize": lambda device: synchronize(), "set_sync_debug_mode": set_strict, "_sleep": lambda cycles: None,
        "current_stream": lambda device: state.stream or default, "stream": lambda stream: StreamContext(stream),
        "mem_get_info": lambda device: (limit - state.driver.get("live_bytes"), limit),
    }.items():  # fmt: skip
        setattr(cuda, name, as_real(getattr(cuda, name))(function))
    for name, kind in {"Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph}.items():
        setattr(cuda, name, only_what_is_real(kind, getattr(cuda, name)))
    cuda.graph = as_real(cuda.graph)(Capture)
    torch.Generator = Generator
    torch.compile = compile_without_a_compiler(torch.compile)
    Operators().__enter__()
