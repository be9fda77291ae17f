"""What the Python package adds to a call, over a loop in C (the library of bare.c, named by the argument), at 128x10 float32: loss, gradient
and statistics.

Prints the lines of `languages.py`: over NumPy arrays with a gradient that is there, and over PyTorch tensors, whose gradient each call allocates. In each
round the loop in C and the package have short tries in turn, of which the fastest counts for each: other work on the machine can double the time of a
call from Python, and hardly changes that of the loop, so that a pair of which one half is disturbed says nothing. All that is printed are medians over
the rounds. Bytes are not counted: Python's small objects come from lists of its own and go back there.
"""

import ctypes
import statistics
import sys
import time

import numpy as np
import ols
import torch

SAMPLES, CLASSES, CALLS, TRIES, ROUNDS = 128, 10, 20, 24, 31


def mean_of(call):
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - begin) / CALLS


def main(path):
    torch.set_num_threads(1)
    c = ctypes.CDLL(path)
    c.bare_criterion.restype, c.bare_criterion.argtypes = ctypes.c_void_p, [ctypes.c_int64]
    c.bare_call.restype, c.bare_call.argtypes = ctypes.c_double, [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3
    bare_criterion = c.bare_criterion(CLASSES)
    if bare_criterion is None:
        sys.exit("overhead.py: the bare criterion cannot be made")

    logits = (np.arange(SAMPLES * CLASSES) * 37 % 97 / 16).astype(np.float32).reshape(SAMPLES, CLASSES)
    targets, gradient = np.arange(SAMPLES) % CLASSES, np.empty_like(logits)
    arrays = ols.Criterion(CLASSES)
    module = ols.OnlineLabelSmoothing(0.5, CLASSES)
    z, y = torch.from_numpy(logits), torch.from_numpy(targets)

    def bare():
        nanoseconds = c.bare_call(bare_criterion, logits.ctypes.data, targets.ctypes.data, gradient.ctypes.data, SAMPLES, CLASSES, CALLS)
        if nanoseconds < 0:
            sys.exit("overhead.py: the bare call fails")
        return nanoseconds

    ways = {
        "Python, NumPy": lambda: arrays(logits, targets, out=gradient),
        "Python, PyTorch": lambda: module.loss_and_grad(z, y),
    }
    for name, call in ways.items():
        # Warm: the interpreter has specialised the code that runs.
        for _ in range(TRIES):
            bare()
            mean_of(call)
        fastest = []
        for _ in range(ROUNDS):
            tries = [(bare(), mean_of(call)) for _ in range(TRIES)]
            fastest.append([min(times) for times in zip(*tries)])
        columns = [[alone for alone, _ in fastest], [wrapped for _, wrapped in fastest], [wrapped - alone for alone, wrapped in fastest]]
        print(name, *(f"{statistics.median(column):.1f}" for column in columns), "-", sep="\t")


main(sys.argv[1])
