"""An array library for device memory of the stand-in CUDA driver (bindings/stand-in-driver), as CuPy is for a GPU. Its arrays only export DLPack.

Import it before ols, in a separate process, because libols looks for its driver once."""

import ctypes
import os
import sys

import numpy as np

# Loaded globally under the name libcuda.so, it is the driver that libols finds.
driver = ctypes.CDLL(os.environ["OLS_TEST_DRIVER"], ctypes.RTLD_GLOBAL)
driver.standin_get.restype = ctypes.c_longlong
float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
DLPACK_CUDA = 2


class _Exported(ctypes.Structure):
    """DLPack's DLManagedTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def demand(status):
    assert status == 0, f"the stand-in returns {status}"


def enter(device):
    """Makes the primary context of a device the current one of this thread."""
    context = ctypes.c_void_p()
    demand(driver.cuInit(0))
    demand(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    demand(driver.cuCtxSetCurrent(context))


def new_stream(device):
    stream = ctypes.c_void_p()
    enter(device)
    demand(driver.cuStreamCreate(ctypes.byref(stream), 1))
    return stream.value


def wait():
    """Runs all enqueued work, on all devices."""
    enter(0)
    demand(driver.cuCtxSynchronize())


def counted(name):
    """A counter of the stand-in, such as "synchronisations"."""
    return driver.standin_get(name.encode())


class Array:
    """Copies a NumPy array to device memory, with its strides."""

    def __init__(self, values, device):
        base = values if values.base is None else values.base
        self.shape, self.strides, self.dtype, self.device = values.shape, values.strides, values.dtype, device
        self.bytes, pointer = base.nbytes, ctypes.c_ulonglong()
        enter(device)
        demand(driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(max(self.bytes, 1))))
        self.memory, self.offset = pointer.value, values.ctypes.data - base.ctypes.data
        ctypes.memmove(self.memory, base.ctypes.data, self.bytes)
        self.asked, self.exported = [], []

    def __del__(self):
        enter(self.device)
        demand(driver.cuMemFree_v2(ctypes.c_ulonglong(self.memory)))

    def __array_namespace__(self):
        return sys.modules[__name__]

    def __dlpack_device__(self):
        return DLPACK_CUDA, self.device

    def __dlpack__(self, stream=None):
        self.asked.append(stream)
        sizes = ctypes.c_int64 * len(self.shape)
        kept = sizes(*self.shape), sizes(*(step // self.dtype.itemsize for step in self.strides))
        code = 4 if self.dtype.name == "bfloat16" else {"i": 0, "u": 1, "f": 2}[self.dtype.kind]
        exported = _Exported(self.memory, DLPACK_CUDA, self.device, len(self.shape), code, 8 * self.dtype.itemsize, 1, *kept, self.offset)
        self.exported.append((exported, kept))
        return _capsule(ctypes.addressof(exported), b"dltensor", None)

    def numpy(self):
        """The values after all enqueued work has run."""
        wait()
        return np.ndarray(self.shape, self.dtype, ctypes.string_at(self.memory, self.bytes), self.offset, self.strides).copy()


def empty(shape, *, dtype, device):
    return Array(np.full(shape, np.nan, dtype), device)


def empty_like(array):
    return empty(array.shape, dtype=array.dtype, device=array.device)


def full(shape, value, *, dtype, device):
    return Array(np.full(shape, value, dtype), device)
