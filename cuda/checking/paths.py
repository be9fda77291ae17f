"""Compares the kernels for compute capability 9.0 with those for all devices, selected with OLS_CUDA_PATH: same bits,
also in a captured step, and speed. A part of its own, and the last one, so that nothing else is lost if time runs
out."""

import functools
import time

import torch

from . import behaviour, race
from .correctness import DTYPES, as_bits, is_gone, random_case
from .library import TAKE_BACK, Criterion, Library, using

PATHS = ("plain", "hopper")
# Measured in addition to the default.
MEASURED = ("plain",)
# Both sides of the limits of the table of variants, odd sizes, and (f64) rows that exceed a block's shared memory.
SIZES = [8, 9, 32, 33, 100, 255, 256, 257, 300, 1000, 1023, 1024, 1025, 1500, 2047, 2048, 2049, 4097, 5003, 6145, 8193, 16384, 21841, 32700, 32768, 32769]
QUICK_SIZES = [9, 33, 257, 1025, 2049, 6145]
LAYOUTS = ["rows", "odd", "images", "class last", "padded"]


def same_bits(library, device, classes, dtype, layout, seed, quick):
    """Returns the differences from the plain path as texts."""
    it = random_case(device, classes, dtype, layout, seed, usual=seed % 4 != 0, quick=quick)
    plain, problems = None, []
    for path in PATHS:
        with using(path):
            criterion = Criterion(library, classes, device, soft_labels=it.soft, class_weights=it.weights, **it.options)
        loss, grad = torch.full_like(it.loss, 77.0), torch.full_like(it.logits, 77.0)
        criterion.forward(it.logits, it.targets, loss, grad, **it.arguments)
        criterion.forward(it.logits, it.targets, **it.arguments)
        criterion.forward(it.logits, it.targets, flags=TAKE_BACK, **it.arguments)
        found = {"loss": as_bits(loss), "gradient": as_bits(grad), "sums": criterion.sums, "counts": criterion.counts, "counters": criterion.counters}
        plain = plain or found
        problems += [f"{path}: other {name}" for name in found if not torch.equal(found[name], plain[name])]
        criterion.close()
    return problems


def correctness(library, device, end, result, arguments):
    """Adds cases and failures to the result; returns whether the device is still usable."""
    sizes = QUICK_SIZES if arguments.quick else SIZES
    plan = [(classes, DTYPES[(at + turn) % len(DTYPES)], LAYOUTS[(at + 2 * turn) % len(LAYOUTS)]) for turn in range(4) for at, classes in enumerate(sizes)]
    for seed, (classes, dtype, layout) in enumerate(plan):
        if time.monotonic() > end:
            break
        try:
            problems = same_bits(library, device, classes, dtype, layout, seed, arguments.quick)
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        name = f"K={classes} {str(dtype)[6:]} {layout} seed={seed}"
        for problem in problems:
            print(f"{name}: {problem}", flush=True)
            result["failures"].append(f"{name}: {problem}"[:500])
        result["cases"] += 1
        arguments.save(result)
        if any(map(is_gone, problems)):
            return False
    if result["cases"] < len(sizes):
        result["failures"].append(f"only {result['cases']} cases fitted the time")
    return True


def measure(library, device, shape, counting, dtype):
    inputs = race.of_race.make(shape, race.DTYPES[dtype], device.name)
    buffers = race.buffers_of(inputs)
    found = {}
    for path in MEASURED:
        race.attempt(found, path, device, functools.partial(race.measure_ours, library, inputs, device, counting, buffers, path))
    return found


def run(arguments):
    if torch.cuda.get_device_capability() < (9, 0):
        return {"ok": True, "skipped": "this device has one kind of kernels", "failures": []}
    library, device = Library(arguments.library), race.Device("cuda:0", arguments.quick)
    start = time.monotonic()
    result = {"ok": False, "cases": 0, "shapes": {}, "failures": (failures := []), "kernels_loaded_s": [library.load(), library.load("plain")]}
    arguments.save(result)
    if not correctness(library, device.name, start + arguments.seconds * 0.5, result, arguments):
        return result
    for path in PATHS:
        with using(path):
            failures += [f"{path}: {failure}" for failure in behaviour.attempt(behaviour.capture_across_epochs, library, device.name, arguments.quick)]
        arguments.save(result)
    for shape, counting, dtype in race.plan(device, arguments.quick):
        if time.monotonic() < start + arguments.seconds - 5:
            key = race.key_of(shape, dtype)
            result["shapes"][key] = measure(library, device, shape, counting, dtype)
            print(key, race.times(result["shapes"][key]), flush=True)
            failures += [f"{key} {path}: {it['error']}" for path, it in result["shapes"][key].items() if "error" in it]
            arguments.save(result)
    result["ok"] = not failures
    return result
