"""The variants of the kernels for compute capability 9.0 that are off by default: whether they give the bits of the plain ones, also in a captured
step, and how fast they are. A part of its own, and the last one: if a device cannot run them, nothing else is lost."""

import functools
import time

import torch

from . import behaviour, race
from .correctness import DTYPES, as_bits, random_case
from .library import TAKE_BACK, Criterion, Library

PATHS = ("bulk", "cluster")
# Both sides of the limits of the table of variants, odd ones, and rows (of f64) that are longer than a block's shared memory.
SIZES = [257, 300, 511, 512, 1000, 1001, 2047, 2048, 2049, 4096, 5003, 16384, 16385, 21841, 32768]
LAYOUTS = ["rows", "odd", "images", "class last", "padded"]


def same_bits(library, device, classes, dtype, layout, seed):
    """What differs from the plain path, as texts."""
    it = random_case(device, classes, dtype, layout, seed)
    plain, problems = None, []
    for path in ("plain", *PATHS):
        with race.using(path):
            criterion = Criterion(library, classes, device, soft_labels=it.soft.clone(), class_weights=it.weights, **it.options)
        loss, grad = torch.full_like(it.loss, 77.0), torch.full_like(it.logits, 77.0)
        criterion.forward(it.logits, it.targets, loss, grad, **it.arguments)
        criterion.forward(it.logits, it.targets, **it.arguments)
        criterion.forward(it.logits, it.targets, flags=TAKE_BACK, **it.arguments)
        found = {"loss": as_bits(loss), "gradient": as_bits(grad), "sums": criterion.sums, "counts": criterion.counts, "counters": criterion.counters}
        plain = plain or found
        problems += [f"{path}: other {name}" for name in found if not torch.equal(found[name], plain[name])]
        criterion.close()
    return problems


def correctness(library, device, seconds):
    end, failures, cases = time.monotonic() + seconds, [], 0
    plan = [(classes, DTYPES[(at + turn) % len(DTYPES)], LAYOUTS[(at + 2 * turn) % len(LAYOUTS)]) for turn in range(4) for at, classes in enumerate(SIZES)]
    for seed, (classes, dtype, layout) in enumerate(plan):
        if time.monotonic() > end:
            break
        name = f"K={classes} {str(dtype)[6:]} {layout}"
        failures += [f"{name}: {problem}" for problem in same_bits(library, device, classes, dtype, layout, seed)]
        cases += 1
    if cases < len(SIZES):
        failures.append(f"only {cases} cases fitted the time")
    return failures, cases


def measure(library, device, shape, counting, dtype):
    inputs = race.make(device, shape, race.DTYPES[dtype])
    buffers = race.buffers_of(inputs)
    found = {}
    for path in PATHS:
        race.attempt(found, path, device, functools.partial(race.measure_ours, library, inputs, device, counting, buffers, path))
    return found


def run(arguments):
    if torch.cuda.get_device_capability() < (9, 0):
        return {"ok": True, "skipped": "this device has no such kernels", "failures": []}
    library, device = Library(arguments.library), race.Device("cuda:0")
    end = time.monotonic() + arguments.seconds
    failures, cases = correctness(library, device.name, arguments.seconds * 0.4)
    result = {"ok": False, "cases": cases, "shapes": {}, "failures": failures}
    arguments.save(result)
    for path in PATHS:
        with race.using(path):
            failures += [f"{path}: {failure}" for failure in behaviour.attempt(behaviour.capture_across_epochs, library, device.name)]
    for shape, counting, dtype in race.plan(device):
        if shape[1] > 256 and time.monotonic() < end - 5:
            key = race.key_of(shape, dtype)
            result["shapes"][key] = measure(library, device, shape, counting, dtype)
            print(key, race.times(result["shapes"][key]), flush=True)
            arguments.save(result)
    result["ok"] = not failures
    return result
