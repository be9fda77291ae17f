"""The race: every contestant computes the same batch, in turns, after it was found right. `benches/race/run` starts it; see docs/benchmarks.md."""

import argparse
import ctypes
import itertools
import os
import statistics
import sys
import time
from functools import partial

import torch

import inputs
import libols
import peers
import python
import record
import report
from gate import Truth

NOW = time.perf_counter_ns
# Processors that others may use while a case is timed.
CALM = 0.1


def timed(function, arguments, repetitions):
    """Nanoseconds of one call, and what the last one returned."""
    turns = itertools.repeat(None, repetitions - 1)
    start = NOW()
    for _ in turns:
        function(*arguments)
    result = function(*arguments)
    return (NOW() - start) / repetitions, result


def calibrated(function, arguments, budget_ns):
    """How often to call it for a turn of about the budget; warms it up on the way (the slow ones are warm from their examination)."""
    repetitions = 1
    while True:
        once, _ = timed(function, arguments, repetitions)
        if once * repetitions > budget_ns / 4 or repetitions >= 1 << 20:
            return max(1, int(budget_ns / once))
        repetitions *= 4


def busy_seconds():
    """Seconds that the machine's processors have worked for anybody, and those that this process had."""
    return record.busy_seconds(), time.process_time()


def rounds(entrants, count, budget_ns):
    """All contestants in turns, each round from another one on: nanoseconds per round by name, and the processors that others used meanwhile."""
    turns = {name: calibrated(*call, budget_ns) for name, call in entrants.items()}
    times = {name: [] for name in entrants}
    names = list(entrants)
    before, start = busy_seconds(), time.monotonic()
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            nanoseconds, result = timed(*entrants[name], turns[name])
            assert name != "libols" or result == 0, "libols failed in the race"
            times[name].append(nanoseconds)
    after, took = busy_seconds(), time.monotonic() - start
    return times, max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / took


def summary(times):
    """Median, minimum and rounds of each; ratios to libols and to the copy, as the median over rounds."""
    contestants = {name: {"median_ns": statistics.median(t), "min_ns": min(t), "rounds_ns": t} for name, t in times.items()}

    def ratio(above, below):
        return statistics.median(a / b for a, b in zip(times[above], times[below]))

    ratios = {name: ratio(name, "libols") for name in times if name not in ("libols", "memcpy")}
    return {"contestants": contestants, "over_libols": ratios, "libols_over_memcpy": ratio("libols", "memcpy")}


def race(library, batch, shape, dtype, threads, options):
    torch.set_num_threads(threads)
    truth = Truth(batch)
    criterion = libols.Criterion(library, batch.soft_labels, inputs.ALPHA, threads)
    call, loss, grad = criterion.forward(batch.logits, batch.targets)
    library.check(call[0](*call[1]))
    errors = {"libols": truth.check("libols", loss, grad, (criterion.sums, criterion.counts, False))}
    copy = torch.empty_like(batch.logits)
    size = batch.logits.numel() * batch.logits.element_size()
    arguments = ctypes.c_void_p(copy.data_ptr()), ctypes.c_void_p(batch.logits.data_ptr()), ctypes.c_size_t(size)
    entrants = {"memcpy": (ctypes.memmove, arguments), "libols": call}
    not_run = {}
    for name, function in peers.contestants(batch, options.compile).items():
        if name not in options.contestants:
            continue
        if function is None:
            not_run[name] = "left out by --no-compile"
            continue
        batch.sums.zero_(), batch.counts.zero_()
        try:
            found = function()
        except Exception as error:  # Only the compiler may fail: it depends on tools outside.
            if name != "compiled":
                raise
            not_run[name] = (f"{type(error).__name__}: {error}").splitlines()[0][:200]
            continue
        state = (batch.sums, batch.counts, name == "eager") if name in ("eager", "rewrite", "compiled") else None
        errors[name] = truth.check(name, *found, state)
        entrants[name] = (function, ())
    if options.python:
        from_python = python.race(batch, shape, dtype, threads, options, truth, rounds)
    del truth
    times, others = rounds(entrants, options.rounds, options.budget * 1e6)
    criterion.close()
    case = {"shape": inputs.name_of(shape), "dtype": dtype, "threads": threads, **summary(times), "others_used": others}
    for name, found in errors.items():
        case["contestants"][name].update(found)
    if options.python:
        case["python"] = from_python
    for name, reason in not_run.items():
        case["contestants"][name] = {"not_run": reason}
    return case


def calmest(measure, tries):
    """The case that others disturbed least, of up to so many; the first one that is calm ends it."""
    others = record.others_used
    case = measure()
    for _ in range(tries - 1):
        if others(case) <= CALM:
            break
        print(f"\n{case['shape']} {case['dtype']}: others used {others(case):.2f} processors; once more", flush=True)
        case = min(case, measure(), key=others)
    return case


def next_epoch(library, classes, threads, options):
    """The end of an epoch, all classes measured, beside a copy of S. The statistics are put back before each, outside of the time."""
    criterion = libols.Criterion(library, inputs.soft_labels(classes), inputs.ALPHA, threads)
    generator = torch.Generator().manual_seed(3)
    row = torch.randint(1, 1 << libols.FRACTION_BITS, (classes,), generator=generator)
    copy = torch.zeros(classes, classes)
    times = {"memcpy": [], "libols": []}
    for _ in range(options.rounds):
        criterion.counts.fill_(10)
        criterion.sums.copy_(row)
        start = NOW()
        status = library.c.ols_next_epoch(criterion.handle, None)
        times["libols"].append(NOW() - start)
        library.check(status)
        times["memcpy"].append(timed(ctypes.memmove, (copy.data_ptr(), criterion.soft_labels.data_ptr(), copy.nbytes), 1)[0])
    want = (row.double() / row.sum()).float()
    if not torch.equal(criterion.soft_labels, want.expand_as(copy)) or criterion.sums.any() or criterion.counts.any():
        raise AssertionError("next_epoch is wrong")
    criterion.close()
    return {"classes": classes, "threads": threads, **summary(times)}


def arguments():
    parser = argparse.ArgumentParser(prog="benches/race/run", description="libols against PyTorch and a copy, on the processor")
    every = [inputs.name_of(shape) for shape in inputs.SHAPES + inputs.IMAGES]
    parser.add_argument("--quick", action="store_true", help="the two smallest shapes, one thread, nothing compiled: does it run at all")
    parser.add_argument("--shapes", help=f"of {','.join(every)}", default=",".join(every))
    parser.add_argument("--dtypes", help="f32, bf16 or both; images are f32", default="f32,bf16")
    parser.add_argument("--threads", help="as in 1,2,all", default="1,all")
    parser.add_argument("--contestants", help="of PyTorch's", default="eager,rewrite,compiled,ce,ce_smooth,ce_prob")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile, which takes a minute per case")
    parser.add_argument("--no-python", dest="python", action="store_false", help="without the section of the Python package")
    parser.add_argument("--epochs", help="K for next_epoch; 21841 needs 10 GB of memory", default="1000,10000,21841")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=40, help="milliseconds of a contestant's turn")
    parser.add_argument("--tries", type=int, default=3, help="how often a case that others disturb is measured, until it is calm")
    parser.add_argument("--write-docs", action="store_true", help="puts tables and plot into docs/benchmarks.md and docs/benchmarks.png")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.threads, options.compile, options.epochs = "128x10,256x100", "1", False, "100"
        options.rounds, options.budget, options.tries = min(options.rounds, 3), min(options.budget, 5), 1
    options.shapes, options.contestants = options.shapes.split(","), options.contestants.split(",")
    if unknown := set(options.shapes) - set(every):
        parser.error(f"unknown shapes: {unknown}")
    everybody = len(os.sched_getaffinity(0))
    options.threads = sorted({everybody if text == "all" else int(text) for text in options.threads.split(",")})
    return options


def main():
    options = arguments()
    library = libols.Library()
    nothing, _ = timed(library.c.ols_abi_version, (), 200_000)
    result = report.header(library.version, record.commit(), nothing, sys.argv[1:], options)
    for shape in inputs.SHAPES + inputs.IMAGES:
        if inputs.name_of(shape) not in options.shapes:
            continue
        for dtype in options.dtypes.split(",") if len(shape) == 2 else ["f32"]:
            batch = inputs.make(shape, inputs.DTYPES[dtype])
            for threads in options.threads:
                result["cases"].append(calmest(partial(race, library, batch, shape, dtype, threads, options), options.tries))
                report.show(result["cases"][-1])
                if options.python:
                    python.show(result["cases"][-1]["python"])
            del batch
    for classes in filter(None, options.epochs.split(",")):
        for threads in options.threads:
            result["next_epoch"].append(next_epoch(library, int(classes), threads, options))
            report.show_epoch(result["next_epoch"][-1])
    report.finish(result, os.environ["OLS_RACE_WORK"], options.write_docs)


if __name__ == "__main__":
    main()
