"""The benchmark: libols against PyTorch, the peers that are installed, a device copy of the same bytes and an empty
kernel.

Device time is measured by replaying a graph of many steps, per step. Each step has its own buffers, up to 256 MB in
total, so that large shapes do not find theirs in the L2 cache; shapes up to 256x1000 do. Eager time is that of a loop
without synchronisation, per step, from its start until the device has finished; host time ends when the last call has
returned. There are no graphs and no empty kernels on the CPU, which is only for testing this program."""

import functools
import gc
import pathlib
import sys
import time

import torch
import torch.nn.functional as F

from .library import Criterion, Library, abi, using

# The contestants of the CPU benchmark.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benches" / "race"))
import inputs as of_race  # noqa: E402
import peers  # noqa: E402

# Shape, and whether statistics are added.
SHAPES = [
    ((128, 10), True), ((256, 100), True), ((256, 1000), True), ((4096, 1000), True), ((1024, 21841), True), ((8, 21, 512, 512), True),
    ((2, 19, 1024, 2048), True), ((8192, 32000), False),
]  # fmt: skip
SMALL_SHAPES = [((128, 10), True), ((2, 5, 16, 16), True), ((16, 300), False)]
DTYPES = of_race.DTYPES
BYTES_APART = 256e6
STEPS = 20
# The most seconds for one run of the steps: slower contestants run fewer of them.
STEPS_TAKE, STEPS_TAKE_QUICK = 0.1, 0.01
# Cycles for which the device sleeps before a graph's first timestamp: about 100 us, in which the host submits the
# graph.
HEAD_START = 200_000
# Seconds of work to bring an idle device up to its clock rate.
WARM_UP = 1.0
# Seconds that a compilation may take; with less time left, it is skipped.
TO_COMPILE = 25


class Device:
    """The device of the benchmark, and how time is measured on it."""

    def __init__(self, name, quick):
        self.name, self.cuda, self.steps_take = name, name.startswith("cuda"), STEPS_TAKE_QUICK if quick else STEPS_TAKE

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def as_many_as_fit(self, steps):
        """Returns as many of the steps as fit into `steps_take`, and how often to repeat them; runs a few as a
        warm-up."""
        for step in steps[:2]:
            step()
        self.wait()
        start = time.perf_counter()
        steps[0]()
        self.wait()
        once = time.perf_counter() - start
        return steps[: max(1, int(self.steps_take / once))], 3 if once > self.steps_take else 11

    def eager_time(self, steps):
        """Microseconds per step: (until the device has finished, until the last call has returned)."""
        steps, repeated = self.as_many_as_fit(steps)
        best, host = float("inf"), float("inf")
        for _ in range((repeated + 1) // 2):
            start = time.perf_counter()
            for step in steps:
                step()
            called = time.perf_counter()
            self.wait()
            best, host = min(best, time.perf_counter() - start), min(host, called - start)
        return best / len(steps) * 1e6, host / len(steps) * 1e6

    def graph_time(self, steps):
        """Device time per step in a replayed graph, in microseconds: (best, median)."""
        # PyTorch requires a warm-up on a side stream before a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            steps, repeated = self.as_many_as_fit(steps)
        torch.cuda.current_stream().wait_stream(side)
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for step in steps:
                step()
        graph.replay()
        self.wait()
        times = []
        for _ in range(repeated):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda._sleep(HEAD_START)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) * 1000 / len(steps))
        times.sort()
        return times[0], times[len(times) // 2]

    def warm_up(self):
        matrix = torch.ones(2048, 2048, device=self.name)
        end = time.monotonic() + WARM_UP
        while time.monotonic() < end:
            matrix @ matrix
            self.wait()

    def free(self):
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


def counted_bytes(inputs, counting):
    """The least number of bytes to move: logits and gradient, the rows of S that are used, and the rows of A that are
    updated (read and written)."""
    size = inputs.logits.element_size() * inputs.logits.numel() * 2
    present = int(torch.bincount(inputs.targets.reshape(-1), minlength=inputs.classes).count_nonzero())
    return size + present * inputs.classes * (4 + (16 if counting else 0))


class Ours:
    """libols in one case: called from Python, and with prepared arguments, as from a compiled language."""

    def __init__(self, library, inputs, device, counting, path=None):
        with using(path):
            self.criterion = Criterion(library, inputs.classes, device.name, soft_labels=inputs.soft_labels.clone(), alpha=of_race.ALPHA)
        if not counting:
            self.criterion.set_mode(abi.Mode.EVAL)
        self.made = {}

    def tensors(self, logits, targets):
        """Logits, targets, loss and gradient as the library takes them; the last two are created once per buffer."""
        if logits.data_ptr() not in self.made:
            self.made[logits.data_ptr()] = torch.zeros((), device=logits.device), torch.empty_like(logits)
        loss, grad = self.made[logits.data_ptr()]
        if logits.dim() == 2:
            return logits, targets, loss, grad
        n, classes = logits.shape[:2]
        return logits.view(n, classes, -1), targets.view(n, -1), loss, grad.view(n, classes, -1)

    def step(self, logits, targets):
        tensors = self.tensors(logits, targets)
        # The stream is that at the time of the call: that of the graph during a capture.
        return lambda: self.criterion.forward(*tensors)

    def prepared(self, logits, targets):
        function, arguments = self.criterion.prepared(*self.tensors(logits, targets))
        self.criterion.library.check(function(*arguments))  # the status is not checked while time is measured
        return lambda: function(*arguments)


def with_gradient(forward, logits):
    leaf = logits.detach().requires_grad_()
    return lambda: torch.autograd.grad(forward(leaf), leaf)


def contestants(inputs, counting, device):
    """Returns {name: function of logits and targets that makes a step}, to be called for each buffer, and {name:
    reason} for those that are not available."""

    # 16-bit logits are converted to f32, as autocast does for a loss; the compiler fuses the conversion.
    def rewrite(leaf, y):
        return peers.rewrite(peers.rows(leaf).float(), y.reshape(-1), inputs.blended, inputs.sums, inputs.counts)

    def rewritten(forward):
        return lambda z, y: with_gradient(lambda leaf: forward(leaf, y), z)

    def copying(z, _):
        to = torch.empty_like(z)
        return lambda: to.copy_(z)

    found = {
        "copy": copying,
        "ce": lambda z, y: with_gradient(lambda leaf: F.cross_entropy(leaf, y), z),
        "ce_smooth": lambda z, y: with_gradient(lambda leaf: F.cross_entropy(leaf, y, label_smoothing=0.1), z),
    }
    absent = {}
    if device.cuda:
        found["empty"] = lambda *_: lambda: torch.cuda._sleep(0)
    else:
        absent["empty"] = "only a device has kernels"
    if counting:
        eager = peers.Eager(inputs)
        found["rewrite"] = rewritten(rewrite)
        found["eager"] = lambda z, y: with_gradient(lambda leaf: eager(peers.rows(leaf).float(), y.reshape(-1)), z)
        found["compiled"] = rewritten(torch.compile(rewrite, dynamic=False))
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
    except Exception as error:  # not installed, or not compatible with the installed Triton
        absent["liger"] = f"{type(error).__name__}: {error}"
    else:
        # It overwrites the logits with the gradient.
        found["liger"] = lambda z, y: with_gradient(lambda leaf: liger_cross_entropy(peers.rows(leaf), y.reshape(-1)), z.clone())
    return found, absent


# These read values back from the device, which a graph cannot: the eager module selects samples with a mask.
NOT_FOR_GRAPHS = ("eager", "liger")


def repeated(make_step, buffers):
    steps = [make_step(*buffer) for buffer in buffers]
    return (steps * STEPS)[: max(STEPS, len(steps))]


def measure(device, make_step, buffers, graph=True, make_eager=None):
    result = {}
    steps = repeated(make_step, buffers)
    device.wait()
    if not device.cuda:
        result["graph"] = "only a device has graphs"
    elif not graph:
        result["graph"] = "it waits for the device, so it cannot be captured"
    else:
        try:
            result["graph_us"], result["graph_median_us"] = (round(value, 2) for value in device.graph_time(steps))
        except Exception as error:
            result["graph"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            device.wait()
    if make_eager:
        steps = repeated(make_eager, buffers)
    result["eager_us"], result["host_us"] = (round(value, 2) for value in device.eager_time(steps))
    return result


def buffers_of(inputs):
    size = inputs.logits.element_size() * inputs.logits.numel()
    copies = max(1, min(STEPS, int(BYTES_APART / (2 * size))))
    return [(inputs.logits.clone() if copy else inputs.logits, inputs.targets) for copy in range(copies)]


def measure_ours(library, inputs, device, counting, buffers, path=None):
    ours = Ours(library, inputs, device, counting, path)
    try:
        return measure(device, ours.step, buffers, make_eager=ours.prepared)
    finally:
        device.wait()
        ours.criterion.close()


def attempt(results, name, device, measuring):
    """Measures one contestant. A failure becomes its result, unless the device is lost with it."""
    try:
        results[name] = measuring()
    except Exception as error:
        results[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    device.wait()  # raises if the device is lost
    device.free()


def run_shape(library, device, shape, dtype, counting, results, compiled, enough):
    inputs = of_race.make(shape, DTYPES[dtype], device.name)
    buffers = buffers_of(inputs)
    results["right"] = round(inputs.right / inputs.targets.numel(), 3)
    results["counted_mb"], results["buffers"] = round(counted_bytes(inputs, counting) / 1e6, 3), len(buffers)
    others, absent = contestants(inputs, counting, device)
    if compiled:
        # Clear what was compiled for other shapes: after eight recompilations Dynamo would silently fall back to
        # eager mode.
        torch._dynamo.reset()
        attempt(results, "compiled", device, lambda: measure(device, others["compiled"], buffers))
        return
    results.update({name: {"absent": reason} for name, reason in absent.items()})
    attempt(results, "libols", device, lambda: measure_ours(library, inputs, device, counting, buffers))
    for name, make_step in others.items():
        if name == "compiled":
            continue
        if enough():
            attempt(results, name, device, functools.partial(measure, device, make_step, buffers, graph=name not in NOT_FOR_GRAPHS))
        else:
            results[name] = {"absent": "no time was left"}


def plan(device, quick=False):
    """The cases: (shape, whether statistics are added, dtype)."""
    shapes, dtypes = (SHAPES if device.cuda and not quick else SMALL_SHAPES), (DTYPES if device.cuda else ["f32"])
    return [(shape, counting, dtype) for shape, counting in shapes for dtype in dtypes]


def key_of(shape, dtype):
    return f"{of_race.name_of(shape)} {dtype}"


def times(found):
    """For the terminal: the best time of each contestant."""
    return {name: it.get("graph_us", it.get("eager_us", "error")) for name, it in found.items() if isinstance(it, dict) and "absent" not in it}


def run(arguments):
    device, library = Device("cuda:0" if arguments.device == "cuda" else "cpu", arguments.quick), Library(arguments.library)
    end = time.monotonic() + arguments.seconds
    cases, failures = {}, []
    result = {"ok": False, "shapes": cases, "failures": failures}
    if device.cuda:
        result["kernels_loaded_s"] = library.load()
        if not arguments.quick:
            device.warm_up()
    planned = plan(device, arguments.quick)
    # The compiled contestants come last: compiling takes longer than everything else, and is killed with this part if
    # it does not finish.
    turns = [(case, False) for case in planned]
    if device.cuda:
        turns += [(case, True) for case in sorted(planned, key=lambda case: case[2] != "f32") if case[1]]
    for (shape, counting, dtype), compiled in turns:
        key = key_of(shape, dtype)
        if end - time.monotonic() < ((5 if arguments.quick else TO_COMPILE) if compiled else 5):
            if compiled:
                cases.setdefault(key, {})["compiled"] = {"absent": "no time was left"}
            continue
        try:
            run_shape(library, device, shape, dtype, counting, cases.setdefault(key, {}), compiled, lambda: time.monotonic() < end - 5)
        except Exception as error:
            failures.append(f"{key}: {type(error).__name__}: {error}"[:300])
            print(failures[-1], flush=True)
        print(key, times(cases[key]), flush=True)
        arguments.save(result)  # so that results survive whatever happens later
        device.free()
    wanted = "graph_us" if device.cuda else "eager_us"
    for shape, _, dtype in planned:
        ours = cases.get(key_of(shape, dtype), {}).get("libols")
        if not ours or wanted not in ours:
            failures.append(f"{key_of(shape, dtype)}: libols was not measured: {ours or 'no time was left'}")
    result["ok"] = not failures
    return result
