"""One rank of test_torch_distributed.py: `ranks.py FOLDER RANK RANKS SCENARIO...`. Exits with status 0 if all checks pass."""

import copy
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import ols

FOLDER, RANK, RANKS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
K = 7


class Scaling(torch.nn.Module):
    """A model that gives a sample bitwise the same logits in every batch, with or without the criterion inside."""

    def __init__(self, criterion=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((K,), 1.5))
        self.criterion = criterion

    def forward(self, x, target=None):
        return x * self.scale if target is None else self.criterion(x * self.scale, target)


def data(epoch):
    generator = torch.Generator().manual_seed(epoch)
    return torch.randn(60, K, generator=generator) * 2, torch.randint(K, (60,), generator=generator)


def mine(epoch):
    """This rank's part, in batches of different sizes; their number differs between ranks, and in one epoch the last rank has none."""
    x, y = data(epoch)
    cuts = [0, 31, 60] if RANKS == 2 else [0, 31, 44, 60]
    if epoch == 2:
        cuts = [0, 60, 60] if RANKS == 2 else [0, 31, 60, 60]
    start, end = cuts[RANK], cuts[RANK + 1]
    return [(x[at : min(at + 9, end)], y[at : min(at + 9, end)]) for at in range(start, end, 9)]


def new():
    return ols.OnlineLabelSmoothing(0.5, K, momentum=0.25, empty_class="uniform")


def alone(epochs, until=None):
    """A single process with all samples."""
    criterion, model = new(), Scaling()
    for epoch in range(epochs):
        x, y = data(epoch)
        criterion(model(x), y)
        criterion.next_epoch(sync=False)
    return criterion


def assert_same(tensor, expected):
    assert torch.equal(tensor, expected), (tensor - expected).abs().max()
    everywhere = [torch.empty_like(tensor) for _ in range(RANKS)]
    dist.all_gather(everywhere, tensor.contiguous())
    assert all(torch.equal(other, expected) for other in everywhere)


def run(criterion, step, epochs=3):
    for epoch in range(epochs):
        for x, y in mine(epoch):
            step(x, y)
        report = criterion.next_epoch()
        expected = alone(epoch + 1)
        assert_same(criterion.soft_labels, expected.soft_labels)
        assert criterion.counts.sum() == 0
        assert report.epoch == epoch + 1
        totals = [None] * RANKS
        dist.all_gather_object(totals, report.as_dict())
        assert all(total == totals[0] for total in totals)


def outside():
    criterion, model = new(), DistributedDataParallel(Scaling())
    with model.join():
        for x, y in mine(0):
            criterion(model(x), y).backward()
    criterion.next_epoch()
    assert_same(criterion.soft_labels, alone(1).soft_labels)
    criterion, model = new(), Scaling()
    run(criterion, lambda x, y: criterion(model(x), y).backward())


def inside():
    criterion = new()
    model = DistributedDataParallel(Scaling(criterion))  # which broadcasts buffers in each forward
    for epoch in range(2):
        batches = mine(epoch)
        most = torch.tensor(len(batches))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        for number in range(most):  # a rank without batches passes an empty one, because all ranks take part in the broadcast of buffers
            x, y = batches[number] if number < len(batches) else (torch.zeros(0, K), torch.zeros(0, dtype=torch.int64))
            model(x, y).backward()
        criterion.next_epoch()
        assert_same(criterion.soft_labels, alone(epoch + 1).soft_labels)


def in_parts(model, criterion):
    """Runs some batches of each rank through a sharded model that contains the criterion."""
    for x, y in mine(0)[:2]:
        model(x, y).backward()
    assert criterion.soft_labels.dtype == torch.float32
    parts = [None] * RANKS
    dist.all_gather_object(parts, mine(0)[:2])
    expected = new()
    for part in parts:
        for x, y in part:
            expected(x * 1.5, y)
    criterion.next_epoch()
    expected.next_epoch(sync=False)
    assert_same(criterion.soft_labels, expected.soft_labels)


def sharded():
    """FSDP2."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    criterion = new()
    in_parts(fully_shard(Scaling(criterion), mesh=init_device_mesh("cpu", (RANKS,))), criterion)


def checkpoints():
    """Saves within an epoch and resumes: from the first rank's file, or from one file per rank."""
    for gathered in (True, False):
        criterion, model = new(), Scaling()
        for epoch in range(2):
            for x, y in mine(epoch):
                criterion(model(x), y)
            if epoch == 0:
                criterion.next_epoch()
        before = criterion.counts.clone()
        dist.all_reduce(before)
        if gathered:
            criterion.gather()
            assert criterion.counts.sum() == (before.sum() if RANK == 0 else 0)
        name = FOLDER / f"{gathered}-{0 if gathered else RANK}.pt"
        if RANK == 0 or not gathered:
            torch.save(criterion.state_dict(), name)
        dist.barrier()
        resumed = ols.OnlineLabelSmoothing(0.1, K)
        resumed.load_state_dict(torch.load(name, weights_only=True))
        again = copy.deepcopy(resumed)
        for one in (criterion, resumed, again):
            assert one.epoch == 1
            one.next_epoch()
            assert_same(one.soft_labels, alone(2).soft_labels)


def within(criterion, model):
    """One complete epoch and the batches of a second one."""
    for epoch in range(2):
        for x, y in mine(epoch):
            criterion(model(x), y)
        if epoch == 0:
            criterion.next_epoch()


def assert_everywhere_the_same(state):
    states = [None] * RANKS
    dist.all_gather_object(states, state)
    for other in states:
        assert list(other) == list(state)
        assert all(torch.equal(other[name], state[name]) for name in state)


def any_copy():
    """After `gather`, a distributed checkpoint may keep any rank's copy."""
    criterion, model = new(), Scaling()
    within(criterion, model)
    criterion.gather()
    saved = copy.deepcopy(criterion.state_dict())
    assert saved["counts"].sum() > 0
    assert_everywhere_the_same(saved)
    assert_everywhere_the_same(copy.deepcopy(criterion).state_dict())
    assert_everywhere_the_same(criterion.half().state_dict())
    torch.save(saved, FOLDER / f"any-{RANK}.pt")
    dist.barrier()
    for kept in range(RANKS):
        resumed = new()
        resumed.load_state_dict(torch.load(FOLDER / f"any-{kept}.pt", weights_only=True))
        assert (resumed.counts.sum() > 0) == (RANK == 0)
        resumed.next_epoch()
        assert_same(resumed.soft_labels, alone(2).soft_labels)
    # A rank that counts again saves its own statistics.
    x, y = data(7)
    criterion(model(x), y)
    assert torch.equal(criterion.state_dict()["counts"], criterion.counts)
    assert ols.torch._checkpoint.read(criterion.state_dict(), criterion._settings).rank == RANK
    criterion.take_back(model(x), y)
    criterion.gather()
    criterion.next_epoch()
    assert_same(criterion.soft_labels, alone(2).soft_labels)
    assert criterion.state_dict()["counts"].sum() == 0
    # A group whose first rank is not rank 0.
    if RANKS > 2:
        group = dist.new_group([1, 2])
        criterion = new()
        criterion(torch.eye(K), torch.arange(K))
        if RANK > 0:
            criterion.gather(group)
            assert criterion.counts.sum() == (2 * K if RANK == 1 else 0)
            assert criterion.state_dict()["counts"].sum() == 2 * K
            assert ols.torch._checkpoint.read(criterion.state_dict(), criterion._settings).rank == 1


def distributed_checkpoints():
    """torch.distributed.checkpoint within an epoch, with the state dicts of a criterion and of a sharded model."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

    criterion, model = new(), Scaling()
    within(criterion, model)
    criterion.gather()
    dcp.save({"criterion": criterion.state_dict()}, checkpoint_id=FOLDER / "dcp")
    resumed = ols.OnlineLabelSmoothing(0.1, K)
    state = {"criterion": resumed.state_dict()}
    dcp.load(state, checkpoint_id=FOLDER / "dcp")
    resumed.load_state_dict(state["criterion"])
    for one in (criterion, resumed):
        one.next_epoch()
        assert_same(one.soft_labels, alone(2).soft_labels)

    wraps = [DistributedDataParallel]
    if not torch.__version__.startswith("2.6."):  # where fully_shard needs a GPU
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        wraps.append(lambda model: fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,))))
    for number, wrap in enumerate(wraps):
        options = {"weight": torch.arange(1, K + 1), "init": torch.arange(K * K).view(K, K) / 99}
        model = Scaling(ols.OnlineLabelSmoothing(0.5, K, momentum=0.25, empty_class="uniform", **options))
        criterion, wrapped = model.criterion, wrap(model)
        for x, y in mine(0)[:2]:
            wrapped(x, y)
        criterion.gather()
        state, whole = get_model_state_dict(wrapped), get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
        assert {f"criterion.{name}" for name in criterion.state_dict()} | {"scale"} == set(state) == set(whole)
        dcp.save(state, checkpoint_id=FOLDER / f"dcp-{number}")
        whole = copy.deepcopy(whole)
        first = [whole]
        dist.broadcast_object_list(first)
        criterion.next_epoch()
        for full in (False, True):
            other = Scaling(ols.OnlineLabelSmoothing(0.1, K, weight=torch.zeros(K), init=torch.zeros(K, K)))
            # Through a wrapper, set_model_state_dict only finds parameters and buffers.
            again = other if number == 0 else wrap(other)
            if full:
                set_model_state_dict(again, copy.deepcopy(first[0]), options=StateDictOptions(full_state_dict=True))
            else:
                state = get_model_state_dict(again)
                dcp.load(state, checkpoint_id=FOLDER / f"dcp-{number}")
                set_model_state_dict(again, state)
            assert repr(other.criterion) == repr(criterion)
            other.criterion.next_epoch()
            assert_same(other.criterion.soft_labels, criterion.soft_labels)
            assert torch.equal(other.criterion.class_weights, criterion.class_weights)


def groups():
    criterion, model = new(), Scaling()
    for x, y in mine(0):
        criterion(model(x), y)
    own = copy.deepcopy(criterion)
    own.next_epoch(sync=False)
    single = new()
    for x, y in mine(0):
        single(model(x), y)
    before = single.counts.clone()
    group = dist.new_group([0])  # all ranks create it, only its member uses it
    other = dist.new_group(list(range(RANKS)))
    if RANK == 0:
        single.next_epoch(group=group)
        assert torch.equal(single.soft_labels, own.soft_labels)
    else:
        for use in (single.next_epoch, single.gather):
            try:
                use(group=group)
            except RuntimeError as error:
                assert str(error) == f"group: only its members may call, but rank {RANK} is not one of them", error
            else:
                raise AssertionError("a process outside of the group ended its epoch alone")
        assert torch.equal(single.counts, before)
        assert single.epoch == 0
    criterion.next_epoch(group=other)
    assert_same(criterion.soft_labels, alone(1).soft_labels)
    if RANKS > 1 and RANK == 1:
        assert not torch.equal(own.soft_labels, criterion.soft_labels)


def devices():
    """A group that does not support the device of the statistics is an error, and nothing changes."""
    from torch.testing._internal.distributed import fake_pg  # noqa: F401  registers the backend that needs no GPU

    criterion, model = new(), Scaling()
    for x, y in mine(0):
        criterion(model(x), y)
    before = criterion.sums.clone(), criterion.soft_labels.clone()
    group = dist.new_group(backend="cuda:fake")
    for use in (criterion.next_epoch, criterion.gather):
        try:
            use(group=group)
        except RuntimeError as error:
            assert "the statistics are on cpu, but the process group (" in str(error), error
            assert "only reduces tensors on cuda" in str(error), error
        else:
            raise AssertionError("a group without a backend for the device was taken")
    assert (criterion.epoch, criterion.counts.sum() > 0) == (0, True)
    assert torch.equal(before[0], criterion.sums)
    assert torch.equal(before[1], criterion.soft_labels)


dist.init_process_group("gloo", init_method=f"file://{FOLDER}/store", rank=RANK, world_size=RANKS, timeout=timedelta(seconds=300))
torch.set_num_threads(1)
for scenario in sys.argv[4:]:
    globals()[scenario]()
    dist.barrier()
    print(scenario, "held", flush=True)
dist.destroy_process_group()
