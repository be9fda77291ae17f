#!/usr/bin/env python3
"""Launches every kernel on small batches, with device memory exactly as long as each tensor.

For compute-sanitizer, which is fast if no framework is loaded. Usage: sanitized.py PATH/libols.so [--quick]"""

import ctypes
import math
import random
import struct
import sys

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from checking.library import NO_UPDATE, TAKE_BACK, Library, Report, Tensor, abi, code_and_bits, using  # noqa: E402

FORMATS = {"f32": "f", "f64": "d", "f16": "e", "i64": "q", "i32": "i", "u8": "B"}  # formats of the module struct


class Driver:
    """The part of libcuda that memory management needs."""

    def __init__(self):
        self.c = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        status = getattr(self.c, name)(*arguments)
        if status != 0:
            raise SystemExit(f"sanitized.py: {name} gives {status}")

    def multiprocessors(self):
        found = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(found), 16, 0)
        return found.value

    def memory(self, content):
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(len(content), 1)))
        if content:
            self.call("cuMemcpyHtoDAsync_v2", pointer, content, ctypes.c_size_t(len(content)), None)
        return pointer.value

    def wait(self):
        self.call("cuCtxSynchronize")


def pack(dtype, values):
    if dtype == "bf16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)


class Made:
    """The tensors of one case; their memory is freed at its end."""

    def __init__(self, driver):
        self.driver, self.addresses = driver, []

    def tensor(self, dtype, shape, values, strides=None):
        return self.of_bytes(dtype, shape, pack(dtype, values), strides)

    def filled(self, dtype, shape, value):
        return self.of_bytes(dtype, shape, pack(dtype, [value]) * math.prod(shape))

    def of_bytes(self, dtype, shape, content, strides=None):
        code, bits = code_and_bits(dtype.upper())
        address = self.driver.memory(content)
        self.addresses.append(address)
        tensor = Tensor(data=address, device_type=abi.DEVICE_CUDA, dtype_code=code, dtype_bits=bits, dtype_lanes=1, ndim=len(shape))
        step = 1
        for axis in reversed(range(len(shape))):
            tensor.shape[axis] = shape[axis]
            tensor.strides[axis] = step if strides is None else strides[axis]
            step *= shape[axis]
        return tensor

    def free(self):
        self.driver.wait()
        for address in self.addresses:
            self.driver.call("cuMemFree_v2", ctypes.c_uint64(address))


def case(library, driver, classes, dtype, n, inner, rng, general, class_last=False):
    """Launches the kernels for one batch; `general`: with weights, second targets and an upstream gradient."""
    made = Made(driver)
    shape, per_sample = ((n, classes), (n,)) if inner is None else ((n, classes, inner), (n, inner))
    samples = n * (inner or 1)
    values = [rng.uniform(-4, 4) for _ in range(samples * classes)]
    targets = [rng.randrange(classes) for _ in range(samples)]
    width = inner or 1
    for sample, target in enumerate(targets):
        if sample % 3:
            place = sample * classes + target if class_last else (sample // width * classes + target) * width + sample % width
            values[place] = 6.0
    targets[0] = classes + 5  # out of range: must be counted and never used as an index
    strides = (classes * width, 1, classes) if class_last else None
    raw = library.options()
    raw.num_classes, raw.device_type, raw.reduction = classes, abi.DEVICE_CUDA, samples % 3
    class_weights = (ctypes.c_double * classes)(*(rng.random() for _ in range(classes)))
    if general:
        code, bits = code_and_bits("F64")
        of_host = Tensor(data=ctypes.addressof(class_weights), device_type=abi.DEVICE_CPU, dtype_code=code, dtype_bits=bits, dtype_lanes=1, ndim=1)
        of_host.shape[0], of_host.strides[0] = classes, 1
        raw.class_weights = of_host
    handle = ctypes.c_void_p()
    library.check(library.c.ols_create(ctypes.byref(raw), ctypes.byref(handle)))
    batch = library.batch()
    batch.logits = made.tensor(dtype, shape, values, strides)
    batch.targets = made.tensor("i32", per_sample, targets)
    if general:
        batch.sample_weights = made.tensor("f32", per_sample, [rng.random() for _ in range(samples)])
        batch.targets2 = made.tensor("u8" if classes < 256 else "i64", per_sample, [rng.randrange(min(classes, 256)) for _ in range(samples)])
        batch.lam = made.tensor("f64", (), [0.6])
        batch.grad_loss = made.tensor("f32", (), [1.5])
    wide = "f64" if dtype == "f64" else "f32"
    loss = made.tensor(wide, per_sample, [0.0] * samples) if raw.reduction == 0 else made.tensor(wide, (), [0.0])
    grad = made.of_bytes(dtype, shape, bytes(len(values) * code_and_bits(dtype.upper())[1] // 8), strides)
    to = ctypes.byref
    for flags in (0, NO_UPDATE, 0, TAKE_BACK):
        batch.flags = flags
        library.check(library.c.ols_forward(handle, to(batch), to(loss), to(grad)))
    batch.flags = 0
    library.check(library.c.ols_backward(handle, to(batch), None, to(grad)))
    probabilities = library.batch()
    probabilities.logits = made.tensor(dtype, shape, [1 / classes] * len(values), strides)
    probabilities.targets = batch.targets
    library.check(library.c.ols_accumulate(handle, to(probabilities)))
    library.check(library.c.ols_next_epoch(handle, None))
    soft = Tensor()
    library.check(library.c.ols_soft_labels(handle, to(soft)))
    other = made.filled("f32", (classes, classes), 1 / classes)
    library.check(library.c.ols_set_soft_labels(handle, to(other), None))
    report = Report(struct_size=ctypes.sizeof(Report))
    library.check(library.c.ols_report(handle, None, to(report)))
    library.c.ols_destroy(handle)
    made.free()
    if report.targets_out_of_range < 1 or report.samples_accumulated < 1:
        raise SystemExit(f"sanitized.py: K={classes} {dtype}: {report.targets_out_of_range} wrong targets, {report.samples_accumulated} samples")


# (K, N, inner) for each row of the table of variants. For large batches, of more than 1024 rows, the blocks count the
# targets together.
SIZES = [(5, 33, None), (31, 300, None), (4, 2100, None), (21, 2, 45), (100, 9, None), (300, 5, None), (300, 1030, None), (1100, 3, None), (2100, 3, None)]


# (K, rows per multiprocessor, dtype) of usual kernels whose rows are brought to shared memory by the copy engine: enough
# rows that it is used again.
COPIED = [(257, 70, "f32"), (301, 70, "bf16"), (6201, 7, "f32"), (8193, 7, "bf16")]


def cases(library, driver, quick, copied, rng):
    """Launches all kernels; returns the number of cases."""
    count = 0
    for classes, n, inner in SIZES:
        # There are no usual kernels for f64.
        usual, general = (("f32",), ("bf16",)) if quick else (("f32", "f16", "bf16"), ("f32", "f64", "f16", "bf16"))
        for dtype, is_general in [*((dtype, False) for dtype in usual), *((dtype, True) for dtype in general)]:
            case(library, driver, classes, dtype, n, inner, rng, is_general)
            count += 1
    case(library, driver, 21, "f32", 2, 45, rng, False, class_last=True)
    for classes, rows, dtype in COPIED if copied else []:
        n = rows * driver.multiprocessors()
        case(library, driver, classes, dtype, n if classes > 1024 else max(n, 1024), None, rng, False)
        count += 1
    return count + 1


def main():
    library, driver, rng = Library(sys.argv[1]), Driver(), random.Random(1)
    quick = "--quick" in sys.argv[2:]
    # The default kernels for this device, and those for all devices.
    for path in (None, "plain"):
        name = path or "default"
        library.load(path)  # also keeps the kernels loaded
        with using(path):
            count = cases(library, driver, quick or path == "plain", path is None, rng)
        print(f"{name}: {count} cases through the driver: ok", flush=True)


main()
