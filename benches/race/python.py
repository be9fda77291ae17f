"""The step as users of Python write it, `criterion(z, y).backward()`, against the same contestants through autograd; a section of the race."""

import statistics

import inputs
import peers
import torch
import torch.nn.functional as F

from ols import OnlineLabelSmoothing

TITLES = {
    "module": "criterion(z, y).backward()", "loss_and_grad": "loss_and_grad(z, y)", "eager": "eager module", "rewrite": "best rewrite",
    "compiled": "rewrite, compiled", "ce": "cross entropy",
}  # fmt: skip
# For one thread and f32: at least so many times faster than the eager module; cross entropy may take 5 % less, no more, anywhere.
BARS = {
    "128x10": 2.5,
    "256x100": 2.5,
    "256x1000": 20,
    "4096x1000": 12,
    "1024x10000": 12,
}
CROSS_ENTROPY_BAR = 0.95


def steps(batch, criterion, compile):
    """Name to function; each computes loss and gradient of the batch once, the gradient into `z.grad`."""
    z = batch.logits.detach().clone().requires_grad_()
    targets, flat, plain = (
        batch.targets,
        batch.targets.reshape(-1),
        batch.logits.detach(),
    )
    eager = peers.Eager(batch)

    def through_autograd(forward):
        def step():
            z.grad = None
            loss = forward()
            loss.backward()
            return loss, z.grad

        return step

    def rewritten(function):
        return through_autograd(lambda: function(peers.rows(z).float(), flat, batch.blended, batch.sums, batch.counts))

    found = {
        "module": through_autograd(lambda: criterion(z, targets)),
        "loss_and_grad": lambda: criterion.loss_and_grad(plain, targets),
        "eager": through_autograd(lambda: eager(peers.rows(z).float(), flat)),
        "rewrite": rewritten(peers.rewrite),
        "ce": through_autograd(lambda: F.cross_entropy(z, targets)),
    }
    if compile:
        torch._dynamo.reset()
        found["compiled"] = rewritten(torch.compile(peers.rewrite, dynamic=False))
    return found


def race(batch, shape, dtype, threads, options, truth, rounds):
    """A case: medians, and the ratios to `criterion(z, y).backward()` as medians over rounds."""
    torch.set_num_threads(threads)
    criterion = OnlineLabelSmoothing(inputs.ALPHA, batch.classes, init="zero")
    with torch.no_grad():
        criterion.soft_labels.copy_(batch.soft_labels)
    entrants = {}
    for name, step in steps(batch, criterion, options.compile and "compiled" in options.contestants).items():
        for tensor in (batch.sums, batch.counts, criterion.sums, criterion.counts):
            tensor.zero_()
        loss, grad = step()
        ours = name in ("module", "loss_and_grad")
        state = (criterion.sums, criterion.counts, False) if ours else (batch.sums, batch.counts, name == "eager") if name != "ce" else None
        truth.check("libols" if ours else name, loss, grad, state)
        entrants[name] = (step, ())
    times, others = rounds(entrants, options.rounds, options.budget * 1e6)
    over = {name: statistics.median(a / b for a, b in zip(times[name], times["module"])) for name in times if name != "module"}
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "shape": inputs.name_of(shape),
        "dtype": dtype,
        "threads": threads,
        "median_ns": medians,
        "over_module": over,
        "others_used": others,
    }


def verdicts(case):
    """What the bars say of a case: (text, reached)."""
    bar = BARS.get(case["shape"])
    if bar is None or case["dtype"] != "f32" or case["threads"] != 1:
        return []
    over = case["over_module"]
    return [
        (f"eager {over['eager']:.1f} / {bar}", over["eager"] >= bar),
        (f"CE {over['ce']:.2f} / {CROSS_ENTROPY_BAR}", over["ce"] >= CROSS_ENTROPY_BAR),
    ]


def show(case):
    print(f"\nPython, {case['shape']} {case['dtype']}, {case['threads']} thread{'s' * (case['threads'] > 1)}")
    for name, nanoseconds in case["median_ns"].items():
        ratio = "" if name == "module" else f"{case['over_module'][name]:8.2f} x the module"
        print(f"  {TITLES[name]:<28} {nanoseconds / 1e3:>12,.2f} us {ratio}")
    for text, reached in verdicts(case):
        print(f"  bar: {text}: {'reached' if reached else 'MISSED'}", flush=True)


def markdown(cases):
    """The table for the page."""
    names = [name for name in TITLES if name != "module" and any(name in case["median_ns"] for case in cases)]
    lines = [
        f"From Python, times as long as `{TITLES['module']}`:", "",
        f"| shape | threads | {' | '.join(TITLES[name] for name in names)} |", "|---|--:|" + "--:|" * len(names),
    ]  # fmt: skip
    for case in cases:
        cells = [f"{case['over_module'][name]:.2f}" if name in case["over_module"] else "" for name in names]
        lines.append(f"| {case['shape']} {case['dtype']} | {case['threads']} | {' | '.join(cells)} |")
    return [*lines, ""]
