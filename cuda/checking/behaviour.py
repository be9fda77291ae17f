"""What training loops rely on apart from numerical results: capture and replay across epochs, streams, the absence of
synchronisation, and errors that leave everything usable."""

import ctypes

import torch

from . import oracle
from .library import TAKE_BACK, Criterion, Error, Library, abi, view


def step(n, classes, device, dtype=torch.float32, seed=0):
    make = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=make) * 2
    targets = torch.randint(classes, (n,), generator=make)
    right = torch.rand(n, generator=make) < 0.7
    logits[right, targets[right]] = logits[right].amax(1) + 1
    logits = logits.to(device, dtype)
    return logits, targets.to(device), torch.zeros((), device=device), torch.empty_like(logits)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def state(criterion):
    return [criterion.soft_labels, criterion.sums, criterion.counts, criterion.counters]


def capture_across_epochs(library, device, quick):
    """A captured step, replayed over three epochs, gives the same bits as eager calls; so does a captured end of an
    epoch."""
    for n, classes in ((128, 10), (8, 300), (4, 2500)) if quick else ((128, 10), (4096, 1000), (64, 5003)):
        logits, targets, loss, grad = step(n, classes, device)
        captured, eager = Criterion(library, classes, device), Criterion(library, classes, device)
        eager_loss, eager_grad = torch.zeros_like(loss), torch.empty_like(grad)
        torch.cuda.synchronize()
        graph, end = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured.forward(logits, targets, loss, grad)
        with torch.cuda.graph(end):
            captured.next_epoch()
        assert not captured.counts.any(), "capturing ran something"
        for epoch in range(3):
            for batch in range(3):
                logits.copy_(step(n, classes, device, seed=3 * epoch + batch)[0])
                graph.replay()
                eager.forward(logits, targets, eager_loss, eager_grad)
                torch.cuda.synchronize()
                assert same((loss, grad), (eager_loss, eager_grad)), f"{n}x{classes}: other bits in epoch {epoch}"
            before = [tensor.clone() for tensor in state(eager)]
            (end.replay if epoch == 1 else captured.next_epoch)()
            eager.next_epoch()
            torch.cuda.synchronize()
            assert same(state(captured), state(eager)), f"{n}x{classes}: another state after epoch {epoch}"
            wanted = oracle.next_soft_labels(*before[:3])
            assert torch.equal(eager.soft_labels, wanted), f"{n}x{classes}: the soft labels are not the means"
        captured.close()
        eager.close()


def captures_of_others(library, device, quick):
    """Criteria with their own memory are created, used and destroyed while a stream is being captured; the graph
    stays valid."""
    logits, targets, loss, grad = step(128, 10, device)
    captured, eager = Criterion(library, 10, device), Criterion(library, 10, device)
    eager_loss, eager_grad = torch.zeros_like(loss), torch.empty_like(grad)
    raw, handle = library.options(), ctypes.c_void_p()
    raw.num_classes, raw.device_type, raw.device_id = 10, abi.DEVICE_CUDA, captured.device.index or 0
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        library.check(library.c.ols_create(ctypes.byref(raw), ctypes.byref(handle)))
        captured.forward(logits, targets, loss, grad)
        library.c.ols_destroy(handle)
    graph.replay()
    eager.forward(logits, targets, eager_loss, eager_grad)
    torch.cuda.synchronize()
    assert same((loss, grad), (eager_loss, eager_grad)), "other bits"
    captured.close()
    eager.close()


def nothing_waits(library, device, quick):
    """Calls return while the device is still busy with earlier work, and PyTorch's detection of synchronisations
    reports none."""
    logits, targets, loss, grad = step(8 if quick else 4096, 1000, device)
    criterion = Criterion(library, 1000, device)
    criterion.forward(logits, targets, loss, grad)
    criterion.next_epoch()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        busy, done = torch.cuda.Event(), torch.cuda.Event()
        torch.cuda._sleep(400_000_000)  # a few tenths of a second
        busy.record()
        criterion.forward(logits, targets, loss, grad)
        criterion.backward(logits, targets, grad)
        criterion.forward(logits, targets, flags=TAKE_BACK)
        criterion.next_epoch()
        done.record()
        assert not busy.query() and not done.query(), "a call waited for the device"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    used = torch.cuda.mem_get_info()[0]
    for _ in range(50):
        criterion.forward(logits, targets, loss, grad)
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info()[0] == used, "a call allocated device memory"
    criterion.close()


def streams(library, device, quick):
    """Two criteria on two streams at once give the same bits as one on the default stream."""
    logits, targets, loss, grad = step(16 if quick else 1024, 300, device)
    wanted = Criterion(library, 300, device)
    for _ in range(20):
        wanted.forward(logits, targets, loss, grad)
    torch.cuda.synchronize()
    criteria, outputs, side = [], [], [torch.cuda.Stream(), torch.cuda.Stream()]
    for _ in side:
        criteria.append(Criterion(library, 300, device))
        outputs.append((torch.zeros_like(loss), torch.empty_like(grad)))
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, criterion, output in zip(side, criteria, outputs):
            with torch.cuda.stream(stream):
                criterion.forward(logits, targets, *output)
    torch.cuda.synchronize()
    for criterion, output in zip(criteria, outputs):
        assert same(output, (loss, grad)) and same(state(criterion), state(wanted)), "other bits on another stream"
        criterion.close()
    wanted.close()


def wrong_targets(library, device, _):
    """Targets out of range have no loss and no gradient, and are counted once; the context stays usable."""
    for shape in ((6, 5), (2, 5, 40)):
        logits = torch.randn(shape, device=device)
        targets = torch.randint(5, (shape[0], *shape[2:]), device=device)
        targets.view(-1)[0], targets.view(-1)[-1] = 5, -7
        criterion = Criterion(library, 5, device, reduction="none")
        loss, grad = torch.full(targets.shape, 9.0, device=device), torch.empty_like(logits)
        criterion.forward(logits, targets, loss, grad)
        criterion.backward(logits, targets, grad)
        assert criterion.report().running_targets_out_of_range == 2
        assert loss.view(-1)[0] == 0 and loss.view(-1)[-1] == 0 and bool((loss.view(-1)[1:-1] > 0).all())
        criterion.close()


def refused_take_back(library, device, _):
    """Taking back more than was added changes nothing, and the report fails."""
    logits, targets, loss, grad = step(256, 100, device)
    criterion = Criterion(library, 100, device)
    criterion.forward(logits[:64], targets[:64])
    torch.cuda.synchronize()
    before = [tensor.clone() for tensor in state(criterion)[:3]]
    criterion.forward(logits, targets, flags=TAKE_BACK)
    torch.cuda.synchronize()
    assert same(before, state(criterion)[:3]), "something was taken back"
    try:
        criterion.report()
    except Error as error:
        assert "take back" in str(error), error
    else:
        raise AssertionError("the report says nothing")
    criterion.close()


def bad_pointers(library, device, _):
    """Host memory in place of device memory, and unknown devices: errors name the argument, and the context stays
    usable."""
    logits, targets, loss, grad = step(8, 5, device)
    criterion = Criterion(library, 5, device)
    for name, change in (("logits.data", "logits"), ("targets.data", "targets")):
        on_host = torch.zeros(8, 5) if change == "logits" else torch.zeros(8, dtype=torch.int64)
        for memory in (on_host, on_host.pin_memory()):
            batch = criterion.raw_batch(logits, targets)
            getattr(batch, change).data = memory.data_ptr()
            status = library.c.ols_forward(criterion.handle, ctypes.byref(batch), None, ctypes.byref(view(grad)))
            assert status == abi.Status.INVALID_DEVICE and name in library.c.ols_last_error().decode(), library.c.ols_last_error()
    try:
        Criterion(library, 5, device, device_id=77)
    except Error as error:
        assert "device" in str(error), error
    else:
        raise AssertionError("device 77 was accepted")
    # More memory than there is, allocated by the library.
    raw = library.options()
    raw.num_classes, raw.device_type = 1_000_000, abi.DEVICE_CUDA
    handle = ctypes.c_void_p()
    assert library.c.ols_create(ctypes.byref(raw), ctypes.byref(handle)) == abi.Status.OUT_OF_MEMORY, library.c.ols_last_error()
    criterion.forward(logits, targets, loss, grad)
    assert criterion.report().running_samples_accumulated > 0
    criterion.close()


def deterministic(library, device, quick):
    """Twenty runs of a batch with many collisions give the same bits in loss, gradient and state."""
    for shape in ((64, 10), (8, 300), (2, 21, 8, 8)) if quick else ((4096, 10), (4096, 1000), (4, 21, 128, 128)):
        make = torch.Generator().manual_seed(1)
        logits = torch.randn(shape, generator=make).to(device)
        logits = logits.view(*shape[:2], -1) if len(shape) > 2 else logits
        targets = logits.argmax(1) // 3 * 3
        first = None
        for _ in range(3 if quick else 20):
            criterion = Criterion(library, shape[1], device)
            loss, grad = torch.zeros((), device=device), torch.empty_like(logits)
            criterion.forward(logits, targets, loss, grad)
            torch.cuda.synchronize()
            found = [tensor.clone() for tensor in (loss, grad, *state(criterion))]
            first = first or found
            assert same(first, found), f"{shape}: two runs differ"
            criterion.close()


CHECKS = [capture_across_epochs, captures_of_others, nothing_waits, streams, wrong_targets, refused_take_back, bad_pointers, deterministic]


def attempt(check, library, device, quick):
    """Runs one check; returns its failure as a list of one text, or an empty list."""
    try:
        check(library, device, quick)
        torch.cuda.synchronize()
    except Exception as error:
        failure = f"{check.__name__}: {type(error).__name__}: {error}"
        print(failure, flush=True)
        return [failure]
    print(f"{check.__name__}: ok", flush=True)
    return []


def run(arguments):
    library = Library(arguments.library)
    result = {"ok": False, "passed": [], "failures": [], "kernels_loaded_s": library.load()}
    for check in CHECKS:
        found = attempt(check, library, "cuda:0", arguments.quick)
        result["failures"] += found
        if not found:
            result["passed"].append(check.__name__)
        arguments.save(result)
    result["ok"] = not result["failures"]
    return result
