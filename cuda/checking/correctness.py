"""Compares every variant of the kernels with the oracle: random inputs, every boundary size, every dtype, layouts and
options."""

import random
import time
import types

import torch

from . import oracle
from .library import NO_UPDATE, TAKE_BACK, Criterion, Library

# Both sides of each limit of the table of variants, and sizes used in practice.
SIZES = [
    2, 3, 7, 8, 9, 10, 21, 31, 32, 33, 64, 100, 255, 256, 257, 1000, 1023, 1024, 1025, 1500, 2047, 2048, 2049, 4096, 5003, 6144, 6145, 8192, 8193,
    21841, 32768,
]  # fmt: skip
# (K, N): both sides of the number of rows of few classes per block of the general kernel, and of the most rows that
# get a warp each.
FEW_CLASSES = [(8, 127), (9, 128), (9, 129), (32, 128), (32, 129), (33, 129), (9, 2048), (9, 2049), (32, 2049)]
QUICK_FEW_CLASSES = [(9, 129), (9, 2049)]
# (K, N): more samples than a grid processes at once on any device (a multiprocessor has at most 2048 threads), and
# both sides of the number of samples whose losses and blocks are accumulated in a single word. From 1024 rows of up to
# 1024 classes on, a warp per row, in shared memory for up to 512 classes or 16-bit logits; rows of more than 6144
# classes stream through shared memory.
MANY = [(9, 4096), (9, 4098), (9, 16_384), (9, 16_386), (9, 131_074), (100, 4096), (100, 16_384), (100, 16_386), (300, 4096), (300, 4098),
        (1500, 4098), (2049, 4098), (257, 1022), (257, 1024), (512, 1026), (512, 9002), (513, 9002), (1000, 5000), (1024, 1026), (1023, 5002), (1024, 3000),
        (6145, 1500), (7001, 700), (8193, 1200), (8192, 900), (12_289, 500), (12_288, 600)]  # fmt: skip
# Numbers of pixels: more than have their losses in a single word, and more than most grids process at once.
MANY_PIXELS = [131_072, 131_074, 262_146]
QUICK_SIZES = [3, 32, 33, 257, 1025, 2049]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = ["rows", "padded", "odd", "images", "class last", "in place"]
# Layouts that allow an odd number of samples.
ROW_LAYOUTS = ["rows", "padded", "odd", "in place"]
# Rounding error of a gradient: for 16-bit types half a unit in the last place, relative to the value.
ROUNDING = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
TINY = {torch.float32: 1e-38, torch.float64: 0.0, torch.float16: 2.0**-24, torch.bfloat16: 1e-38}


def place(values, layout):
    """Returns rows (N, K) as a tensor in this layout, and the function that converts it back to rows; for images N
    must be even."""
    n, classes = values.shape
    if layout == "padded":
        memory = torch.zeros(n, classes + 5, dtype=values.dtype, device=values.device)
        memory[:, 2 : 2 + classes] = values
        return memory[:, 2 : 2 + classes], lambda t: t
    if layout == "odd":
        memory = torch.zeros(n * classes + 1, dtype=values.dtype, device=values.device)[1:].view(n, classes)
        return memory.copy_(values), lambda t: t
    if layout in ("images", "class last"):
        images = values.view(2, n // 2, classes).transpose(1, 2)
        back = lambda t: t.transpose(1, 2).reshape(n, classes)  # noqa: E731
        return (images.contiguous() if layout == "images" else images), back
    return values.contiguous().clone(), lambda t: t


def random_case(device, classes, dtype, layout, seed, usual, n=None, quick=False):
    """A random batch in a layout, with its options and arguments. `usual`: with nothing but targets; otherwise with
    class weights or second targets, and at random with the other arguments."""
    choose = random.Random(seed)
    make = torch.Generator(device="cpu").manual_seed(seed)
    if n is None and quick:
        n = choose.choice([2, 6] if classes > 256 else [2, 6, 34])
    elif n is None:
        n = choose.choice([2, 6, 32, 34, 96]) if classes > 2048 else choose.choice([2, 32, 34, 254, 1024, 1026, 5002 if classes < 300 else 600])
    reduction = choose.choice(["none", "mean", "sum"])
    spread = choose.choice([1.0, 4.0, 30.0])
    images = layout in ("images", "class last")
    z = (torch.randn(n, classes, generator=make) * spread).to(dtype)
    target_dtype = choose.choice([torch.int64, torch.int32] + ([torch.uint8] if classes < 250 else []))
    offset = choose.choice([0, 1])
    ignore = -100 if target_dtype != torch.uint8 else 255
    targets = torch.randint(classes, (n,), generator=make)
    raised = torch.rand(n, generator=make) < 0.7
    z[raised, targets[raised]] = z[raised].amax(1) + 1 if raised.any() else z[raised, targets[raised]]
    if choose.random() < 0.3:
        z[0, 0] = torch.nan
        z[-1, : classes // 2] = -torch.inf
    stored = (targets + offset).to(target_dtype)
    if choose.random() < 0.5:
        stored[torch.rand(n, generator=make) < 0.1] = ignore
    options = {"alpha": choose.choice([0.0, 0.3, 0.5, 1.0]), "reduction": reduction, "ignore_index": ignore}
    others = {}
    if not usual and choose.random() < 0.5:
        others["sample_weights"] = torch.rand(n, generator=make, dtype=torch.float64).to(choose.choice([torch.float32, torch.float64]))
        others["sample_weights"][n // 2] = 0
    mixed = not usual and choose.random() < 0.7
    if mixed:
        others["targets2"] = (torch.randint(classes, (n,), generator=make) + offset).to(target_dtype)
        others["lam"] = torch.rand(n, generator=make) if choose.random() < 0.5 else torch.tensor(0.7)
    if not usual and choose.random() < 0.5:
        others["grad_loss"] = torch.rand(n, generator=make) if reduction == "none" else torch.tensor(3.5)
    weights = torch.rand(classes, generator=make) if not usual and (not mixed or choose.random() < 0.4) else None
    # Create large matrices on the device; their values depend on the row and the column as well.
    if classes <= 1024:
        soft = (torch.rand(classes, classes, generator=make) * (2 / classes)).to(device)
    else:
        part = (torch.rand(classes, generator=make) / classes).to(device)
        soft = part[:, None] + part.flip(0)[None, :]

    z, stored = z.to(device), stored.to(device)
    others = {name: tensor.to(device) for name, tensor in others.items()}
    logits, back = place(z, layout)
    shaped = lambda t: t.view(2, n // 2) if images and t.dim() == 1 else t  # noqa: E731
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return types.SimpleNamespace(
        rows=z, row_targets=stored, row_arguments={"target_offset": offset, **others}, soft=soft, weights=weights, options=options,
        logits=logits, targets=shaped(stored), arguments={"target_offset": offset, **{name: shaped(tensor) for name, tensor in others.items()}},
        loss=torch.full(shaped(stored).shape if reduction == "none" else (), 77.0, dtype=wide, device=device), back=back,
    )  # fmt: skip


def case(library, device, classes, dtype, layout, seed, usual, **size):
    """Runs one random case; returns the differences from the oracle as texts."""
    it = random_case(device, classes, dtype, layout, seed, usual, **size)
    weights = None if it.weights is None else it.weights.to(device)
    expected = oracle.loss_and_gradient(it.rows, it.row_targets, it.soft, class_weights=weights, **it.row_arguments, **it.options)
    criterion = Criterion(library, classes, device, soft_labels=it.soft, class_weights=it.weights, **it.options)
    try:
        grad = it.logits if layout == "in place" else torch.full_like(it.logits, 77.0)
        kept = it.logits.clone()
        criterion.forward(it.logits, it.targets, it.loss, grad, **it.arguments)
        logits = kept if layout == "in place" else it.logits
        return compare(criterion, expected, it.loss, it.back(grad), dtype, it.weights, logits, it.targets, grad, it.arguments)
    finally:
        criterion.close()


def as_bits(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def compare(criterion, expected, loss, grad, dtype, weights, logits, targets, raw_grad, arguments):
    problems = []
    exact = dtype == torch.float64
    loss_error, grad_error = (1e-13, 1e-13) if exact else (2e-6, 4e-7)
    largest = max(1.0, 1.0 if weights is None else float(weights.max()))

    def check(name, found, wanted, allowed):
        found, wanted = found.double(), wanted.double()
        same = (found.isnan() & wanted.isnan()) | (found == wanted) | ((found - wanted).abs() <= allowed)
        if not bool(same.all()):
            at = int((~same).flatten().nonzero()[0])
            problems.append(f"{name}[{at}] = {float(found.flatten()[at])!r}, oracle {float(wanted.flatten()[at])!r}; {int((~same).sum())} differ")

    losses = expected["losses"].nan_to_num()
    if loss.dim() == 0:
        allowed = loss_error * largest * (losses.abs().clamp(min=1).sum() / expected["divisor"].clamp(min=1e-300)) + 2.0**-23 * expected["loss"].abs()
    else:
        allowed = loss_error * largest * losses.abs().clamp(min=1) + (0 if exact else 2.0**-23) * losses.abs()
    check("loss", loss.flatten(), expected["loss"].flatten(), allowed)
    wanted = expected["gradient"]
    rounding = wanted.abs().nan_to_num() * ROUNDING[dtype] + TINY[dtype]
    check("gradient", grad, wanted, grad_error * largest * expected["factor"][:, None] + rounding)

    present, sums, counts = oracle.statistics(expected, criterion.classes)
    if not torch.equal(counts, criterion.counts):
        problems.append(f"counts differ in {int((counts != criterion.counts).sum())} classes")
    else:
        check("sums", criterion.sums[present], sums, counts[present][:, None].double() + (2.0**-44 if exact else 2.0**-20) * sums.double())
        absent = torch.ones(criterion.classes, dtype=torch.bool, device=counts.device)
        absent[present] = False
        if bool(criterion.sums.any(1)[absent].any()):
            problems.append("sums of a class without a sample are not 0")
    if int(criterion.counters[0]) != expected["skipped"]:
        problems.append(f"skipped {int(criterion.counters[0])}, oracle {expected['skipped']}")

    # The same call again must give the same bits, and so must backward; taking everything back must leave zeros.
    first, again = (raw_grad.clone(), torch.full_like(logits, 55.0))
    state = criterion.sums[present]
    second_loss = torch.full_like(loss, 55.0)
    criterion.forward(logits, targets, second_loss, again, flags=NO_UPDATE, **arguments)
    if not torch.equal(as_bits(again), as_bits(first)) or not torch.equal(as_bits(second_loss), as_bits(loss)):
        problems.append("a second run gives other bits")
    again.fill_(55.0)
    criterion.backward(logits, targets, again, **arguments)
    if not torch.equal(as_bits(again), as_bits(first)):
        problems.append("backward gives other bits than forward")
    if not torch.equal(state, criterion.sums[present]) or not torch.equal(criterion.counts, counts):
        problems.append("no update, or backward, changed the sums")
    criterion.forward(logits, targets, flags=TAKE_BACK, **arguments)
    if bool(criterion.sums.any()) or bool(criterion.counts.any()):
        problems.append("taking back does not give zeros")
    return problems


def around_shared_memory(quick):
    """(classes, dtype) on both sides of the longest row that fits a block's shared memory (the kernel itself needs less
    than 4 KB of that) and, unless `quick`, of the longest rows that stream through it on compute capability 9.0; and
    descriptions of those for which there is not enough device memory: A takes 8 bytes per pair of classes, S 4. Longer
    16-bit rows would need 160 GB."""
    shared, free = torch.cuda.get_device_properties(0).shared_memory_per_block_optin, torch.cuda.mem_get_info()[0]
    wanted = [(classes, dtype) for dtype, size in ((torch.float32, 4), (torch.float64, 8)) for classes in ((shared - 4096) // size, shared // size + 1)]
    if torch.cuda.get_device_capability(0) == (9, 0) and not quick:
        wanted += [(49_152, torch.float32), (49_153, torch.float32), (32_768, torch.bfloat16), (32_769, torch.bfloat16)]
    fits = [it for it in wanted if it[0] ** 2 * 12 * 1.15 < free]
    return fits, [f"K={classes} {str(dtype)[6:]}" for classes, dtype in wanted if (classes, dtype) not in fits]


def plan(cuda, quick):
    """The cases that always run, as (classes, dtype, layout, samples or None, usual or not), and descriptions of
    those that do not fit into memory."""
    sizes = QUICK_SIZES if quick else SIZES if cuda else [size for size in SIZES if size <= 5003]
    cases = [
        (classes, dtype, LAYOUTS[(at // 2 + number) % len(LAYOUTS)], None, (at + number) % 2 == 0)
        for at, classes in enumerate(sizes) for number, dtype in enumerate(DTYPES)
    ]  # fmt: skip
    left_out = []
    # Each with the usual kernel, which f64 does not have, and with the general kernel.
    of_kernel = [lambda at: (DTYPES[at % 3], True), lambda at: (DTYPES[(at + 1) % 4], False)]
    for at, (classes, n) in enumerate(QUICK_FEW_CLASSES if quick else FEW_CLASSES):
        cases += [(classes, dtype, ROW_LAYOUTS[(at + usual) % len(ROW_LAYOUTS)], n, usual) for dtype, usual in (choice(at) for choice in of_kernel)]
    if cuda:
        fits, left_out = around_shared_memory(quick)
        cases += [(classes, dtype, layout, 34, layout == "rows") for classes, dtype in fits for layout in ("rows", "images")]
    if cuda and not quick:
        for at, (classes, n) in enumerate(MANY):
            for dtype, usual in (choice(at) for choice in of_kernel):
                layouts = ROW_LAYOUTS if usual else LAYOUTS
                cases.append((classes, dtype, layouts[at % len(layouts)], n, usual))
        cases += [(21, dtype, "images", n, dtype == torch.float32) for dtype in (torch.float32, torch.bfloat16) for n in MANY_PIXELS]
    grid = (21,) if quick else (5, 21, 32, 150)
    cases += [
        (classes, dtype, layout, None, (number + place + at) % 2 == 0)
        for at, classes in enumerate(grid) for number, dtype in enumerate(DTYPES) for place, layout in enumerate(LAYOUTS)
    ]  # fmt: skip
    return cases, left_out


def is_gone(problem):
    """Whether an error means that this process can no longer use the device."""
    return "CUDA error" in problem or "AcceleratorError" in problem


def run(arguments):
    library = Library(arguments.library)
    end = time.monotonic() + arguments.seconds
    device, quick = "cuda:0" if arguments.device == "cuda" else "cpu", arguments.quick
    result = {"ok": False, "cases": 0, "failures": (failures := [])}
    if arguments.device == "cuda":
        result["kernels_loaded_s"] = library.load()
    # First the planned cases, then random ones for the remaining time.
    cases, left_out = plan(arguments.device == "cuda", quick)
    if left_out:
        result["left_out"] = f"no memory for {', '.join(left_out)}"
    choose, seed, saved = random.Random(7), 0, time.monotonic()
    while time.monotonic() < end and len(failures) < 20 and not (quick and seed == len(cases)):
        if seed < len(cases):
            classes, dtype, layout, n, usual = cases[seed]
        else:
            classes = choose.choice([choose.randint(2, 40), choose.randint(2, 300), choose.randint(2, 10_000)])
            dtype, layout, n, usual = choose.choice(DTYPES), choose.choice(LAYOUTS), None, choose.random() < 0.5
        seed += 1
        try:
            problems = case(library, device, classes, dtype, layout, seed, usual, n=n, quick=quick)
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        if classes > 16384 and arguments.device == "cuda":
            torch.cuda.empty_cache()  # the library allocates from the driver, not from PyTorch's cache
        result["cases"] += 1
        name = f"K={classes} {str(dtype)[6:]} {layout} {'usual' if usual else 'general'} seed={seed}" + (f" N={n}" if n else "")
        failures += [f"{name}: {problem}" for problem in problems]
        for problem in problems:
            print(f"{name}: {problem}", flush=True)
        if problems or time.monotonic() > saved + 2:
            arguments.save(result)
            saved = time.monotonic()
        if any(map(is_gone, problems)):
            break
    if seed < len(cases):
        failures.append(f"only {seed} of {len(cases)} planned cases were run")
    result["ok"] = not failures
    return result
