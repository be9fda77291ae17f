"""The race: libols against PyTorch, whatever peers are installed, a device copy of the same bytes and an empty kernel.

Device time is that of a replayed graph with many steps in it, divided by the steps; each step has buffers of its own as far as 256 MB go, so that
large shapes do not find theirs in the L2 cache. Eager time is that of a loop without synchronisation, per step, from its start until the device is
done; host time until the last call has returned."""

import gc
import time
import types

import torch
import torch.nn.functional as F

from .library import EVAL, Criterion, Library

ALPHA = 0.5
# Shape, and whether statistics are added.
SHAPES = [
    ((128, 10), True), ((256, 100), True), ((256, 1000), True), ((4096, 1000), True), ((1024, 21841), True), ((8, 21, 512, 512), True),
    ((2, 19, 1024, 2048), True), ((8192, 32000), False),
]  # fmt: skip
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
BYTES_APART = 256e6
STEPS = 20


def name_of(shape):
    return "x".join(map(str, shape))


def rows(tensor):
    return tensor if tensor.dim() == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def make(shape, dtype):
    """Logits of which about 70 % are classified right, targets, and soft labels."""
    generator = torch.Generator(device="cuda").manual_seed(1)
    classes = shape[1]
    logits = torch.empty(shape, device="cuda", dtype=dtype).normal_(0, 2, generator=generator)
    targets = torch.randint(classes, (shape[0], *shape[2:]), generator=generator, device="cuda")
    right = torch.rand(targets.shape, generator=generator, device="cuda") < 0.7
    value = torch.where(right, logits.amax(1) + 1, logits.amin(1) - 1)
    logits.scatter_(1, targets.unsqueeze(1), value.unsqueeze(1).to(dtype))
    soft = torch.full((classes, classes), 0.2 / classes, device="cuda")
    soft.diagonal().add_(0.8)
    return types.SimpleNamespace(logits=logits, targets=targets, soft=soft, classes=classes, right=float(right.float().mean()))


class Eager(torch.nn.Module):
    """The loss as one would write it down from the paper: a column per class, two log-softmaxes, the right samples picked by a mask."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("soft_labels", inputs.soft)
        self.register_buffer("sums", torch.zeros_like(inputs.soft))
        self.register_buffer("counts", torch.zeros(inputs.classes, device="cuda"))

    def forward(self, logits, targets):
        hard = F.cross_entropy(logits, targets)
        soft = -(self.soft_labels[:, targets].t() * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
        with torch.no_grad():
            p = F.softmax(logits, dim=1)
            right = p.argmax(dim=1) == targets
            found = targets[right]
            self.sums.index_add_(1, found, p[right].t())
            self.counts.index_add_(0, found, torch.ones_like(found, dtype=self.counts.dtype))
        return ALPHA * hard + (1 - ALPHA) * soft


def rewrite(logits, targets, blended, sums, counts):
    """The best that could be made of it in PyTorch: a row per class, hard and soft label looked up as one, one log-softmax, no mask indexing."""
    log_p = F.log_softmax(logits, dim=1)
    with torch.no_grad():
        right = (logits.argmax(dim=1) == targets).to(log_p.dtype)
        sums.index_add_(0, targets, log_p.exp().mul_(right.unsqueeze(1)))
        counts.index_add_(0, targets, right)
    return -(blended[targets] * log_p).sum() / logits.shape[0]


def with_gradient(forward, logits):
    leaf = logits.detach().requires_grad_()
    return lambda: torch.autograd.grad(forward(leaf), leaf)


def peers(inputs, counting):
    """Name to a function of logits and targets that gives a step; made for each buffer."""
    found = {
        "ce": lambda z, y: with_gradient(lambda leaf: F.cross_entropy(leaf, y), z),
        "ce smoothed": lambda z, y: with_gradient(lambda leaf: F.cross_entropy(leaf, y, label_smoothing=0.1), z),
    }
    if counting:
        blended = (1 - ALPHA) * inputs.soft
        blended.diagonal().add_(ALPHA)
        sums, counts = torch.zeros_like(inputs.soft), torch.zeros(inputs.classes, device="cuda")
        found["rewrite"] = lambda z, y: with_gradient(lambda leaf: rewrite(rows(leaf).float(), y.reshape(-1), blended, sums, counts), z)
        eager = Eager(inputs)
        found["eager"] = lambda z, y: with_gradient(lambda leaf: eager(rows(leaf).float(), y.reshape(-1)), z)
        compiled = torch.compile(rewrite, dynamic=False)
        found["compiled"] = lambda z, y: with_gradient(lambda leaf: compiled(rows(leaf).float(), y.reshape(-1), blended, sums, counts), z)
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy

        found["liger ce"] = lambda z, y: with_gradient(lambda leaf: liger_cross_entropy(rows(leaf), y.reshape(-1)), z.clone())
    except ImportError:
        pass
    return found


def eager_time(steps):
    """(microseconds per step until the device is done, until the host is)."""
    for step in steps[:3]:
        step()
    torch.cuda.synchronize()
    best, host = float("inf"), float("inf")
    rounds = 5 if len(steps) > 1 else 3
    for _ in range(rounds):
        start = time.perf_counter()
        for step in steps:
            step()
        called = time.perf_counter()
        torch.cuda.synchronize()
        best, host = min(best, time.perf_counter() - start), min(host, called - start)
    return best / len(steps) * 1e6, host / len(steps) * 1e6


def graph_time(steps):
    """Microseconds of the device per step, in a replayed graph: (best, median)."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        steps[0]()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in steps:
            step()
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(11):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / len(steps))
    times.sort()
    return times[0], times[len(times) // 2]


def counted_bytes(inputs, counting):
    """Bytes that must move: logits and gradient, the rows of S that are used, and of A, read and written, those that are added to."""
    size = inputs.logits.element_size() * inputs.logits.numel() * 2
    present = int(torch.bincount(inputs.targets.reshape(-1), minlength=inputs.classes).count_nonzero())
    return size + present * inputs.classes * (4 + (16 if counting else 0))


def measure(make_step, buffers, make_eager=None, graph=True):
    result = {}
    torch.cuda.synchronize()
    steps = [make_step(*buffer) for buffer in buffers]
    steps = (steps * STEPS)[: max(STEPS, len(steps))]
    try:
        if not graph:
            raise NotImplementedError("it waits for the device, so it cannot be captured")
        result["graph_us"], result["graph_median_us"] = (round(value, 2) for value in graph_time(steps))
    except Exception as error:  # many peers cannot be captured
        result["graph"] = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}" if str(error) else type(error).__name__
        torch.cuda.synchronize()
    if make_eager:
        steps = [make_eager(*buffer) for buffer in buffers]
        steps = (steps * STEPS)[: max(STEPS, len(steps))]
    result["eager_us"], result["host_us"] = (round(value, 2) for value in eager_time(steps))
    return result


def run_shape(library, shape, dtype_name, counting, compiled, enough_time):
    dtype = DTYPES[dtype_name]
    inputs = make(shape, dtype)
    bytes_of_logits = inputs.logits.element_size() * inputs.logits.numel()
    copies = max(1, min(STEPS, int(BYTES_APART / (2 * bytes_of_logits))))
    buffers = [(inputs.logits.clone() if copy else inputs.logits, inputs.targets) for copy in range(copies)]
    results = {"right": round(inputs.right, 3), "counted_mb": round(counted_bytes(inputs, counting) / 1e6, 3), "buffers": copies}
    criterion = Criterion(library, shape[1], "cuda:0", soft_labels=inputs.soft.clone(), alpha=ALPHA)
    if not counting:
        criterion.set_mode(EVAL)

    def flat(tensor, classes):
        return tensor if tensor.dim() == 2 else tensor.view(tensor.shape[0], classes, -1)

    grads = {}

    def ours(logits, targets):
        grad = grads.setdefault(logits.data_ptr(), torch.empty_like(logits))
        loss = torch.zeros((), device="cuda")
        criterion.kept = (*getattr(criterion, "kept", ()), loss)
        z, g = flat(logits, shape[1]), flat(grad, shape[1])
        y = targets.view(targets.shape[0], -1) if logits.dim() > 2 else targets

        def step():
            # The stream is that of the moment: a graph's while it is captured.
            criterion.forward(z, y, loss, g)

        return step

    def ours_prepared(logits, targets):
        """The bare C call, all that it points to made before, as a binding in a compiled language has it."""
        loss = torch.zeros((), device="cuda")
        criterion.kept = (*getattr(criterion, "kept", ()), loss)
        y = targets.view(targets.shape[0], -1) if logits.dim() > 2 else targets
        function, arguments = criterion.prepared(flat(logits, shape[1]), y, loss, flat(grads[logits.data_ptr()], shape[1]))
        return lambda: function(*arguments)

    def copying(logits, _):
        grad = grads.setdefault(logits.data_ptr(), torch.empty_like(logits))
        return lambda: grad.copy_(logits)

    contestants = {"libols": ours, "copy": copying, "empty": lambda *_: lambda: torch.cuda._sleep(0), **peers(inputs, counting)}
    for name, make_step in contestants.items():
        if (name == "compiled") != compiled or not enough_time():
            continue
        try:
            # The eager module picks samples by a mask, and Liger asks for a number on the host.
            results[name] = measure(make_step, buffers, ours_prepared if name == "libols" else None, name not in ("eager", "liger ce"))
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        gc.collect()
        if shape[1] > 10_000:
            torch.cuda.empty_cache()
    torch.cuda.synchronize()
    criterion.close()
    return results


def run(arguments):
    library = Library(arguments.library)
    end = time.monotonic() + arguments.seconds
    enough = lambda: time.monotonic() < end - 5  # noqa: E731
    results, failures = {}, []
    # All but the compiled ones first: compiling takes longer than everything else.
    for compiled in (False, True):
        for shape, counting in SHAPES:
            for dtype_name in DTYPES:
                key = f"{name_of(shape)} {dtype_name}"
                if not enough() or (compiled and not counting):
                    continue
                try:
                    found = run_shape(library, shape, dtype_name, counting, compiled, enough)
                    results.setdefault(key, {}).update(found)
                except Exception as error:
                    failures.append(f"{key}: {type(error).__name__}: {str(error)[:300]}")
                    print(failures[-1], flush=True)
                gc.collect()
                torch.cuda.empty_cache()
                line = {name: value.get("graph_us", value.get("eager_us")) for name, value in results.get(key, {}).items() if isinstance(value, dict)}
                print(key, line, flush=True)
    for key, found in results.items():
        if "graph_us" not in found.get("libols", {}):
            failures.append(f"{key}: libols was not measured: {found.get('libols')}")
    missing = [f"{name_of(shape)} {dtype}" for shape, _ in SHAPES for dtype in DTYPES if f"{name_of(shape)} {dtype}" not in results]
    failures += [f"{key}: no time was left" for key in missing]
    return {"ok": not failures, "shapes": results, "failures": failures}
