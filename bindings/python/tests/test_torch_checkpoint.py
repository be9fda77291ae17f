"""Checkpoints: state dicts, those of the published package, files, distributed checkpoints (rule R25)."""

import copy
import io
import json

import numpy as np
import pytest
import torch
from test_torch_loss import batch
from test_torch_state import OPTIONS, go_on, same, trained

import ols
from ols import OnlineLabelSmoothing


def save_and_load(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "weight", "init", "others"])
def test_a_resumed_run_continues_bitwise(options):
    criterion = trained(**options)
    state = save_and_load(criterion.state_dict())
    other = OnlineLabelSmoothing(0.9, 5)
    other.load_state_dict(state)
    assert same(criterion, other)
    assert repr(criterion) == repr(other)
    assert other.epoch == 2
    assert all(torch.equal(a, b) for a, b in zip(go_on(criterion), go_on(other)))


def test_a_module_that_holds_it():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Identity())
    model.criterion = trained()
    names = set(model.state_dict())
    assert {"criterion.soft_labels", "criterion.sums", "criterion.counts", "criterion.counters", "criterion.settings"} <= names
    other = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Identity())
    other.criterion = OnlineLabelSmoothing(0.1, 5)
    other.load_state_dict(save_and_load(model.state_dict()), strict=True)
    assert same(model.criterion, other.criterion)
    assert [name for name, _ in model.named_buffers()] == ["criterion.soft_labels"]
    copied = copy.deepcopy(model)
    assert same(copied.criterion, model.criterion)


def published(k=5, dtype=torch.float32):
    """A state dict like the published package's: a column per class."""
    supervise = torch.rand(k, k)
    supervise /= supervise.sum(0)
    p = torch.softmax(torch.randn(20, k), 1)
    target = torch.arange(20) % k
    update = torch.zeros(k, k).index_add_(1, target, p.t())
    return {"supervise": supervise.to(dtype), "update": update.to(dtype), "idx_count": torch.bincount(target, minlength=k).to(dtype)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_state_dict_of_the_published_package_loads(dtype):
    state = published(dtype=dtype)
    criterion = OnlineLabelSmoothing.reference(0.5, 5)
    assert criterion.load_state_dict(save_and_load(state)) == torch.nn.modules.module._IncompatibleKeys([], [])
    assert torch.equal(criterion.supervise, state["supervise"].float())
    assert torch.equal(criterion.soft_labels[2], state["supervise"][:, 2].float())
    torch.testing.assert_close(criterion.update, state["update"].float(), rtol=0, atol=2**-29)
    assert criterion.idx_count.tolist() == state["idx_count"].tolist()
    assert criterion.epoch == 0
    criterion.next_epoch()
    torch.testing.assert_close(criterion.supervise.double(), state["update"].double() / state["update"].double().sum(0), rtol=1e-6, atol=1e-6)
    model = torch.nn.Module()
    model.loss = criterion
    model.load_state_dict({f"loss.{name}": value for name, value in state.items()})
    assert torch.equal(criterion.supervise, state["supervise"].float())


@pytest.mark.parametrize("ours", [True, False])
def test_a_checkpoint_of_a_gpu_loads_on_the_host(ours, tmp_path, monkeypatch):
    state = trained().state_dict() if ours else published()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")  # as in the file
    torch.save(state, tmp_path / "gpu.pt")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "gpu.pt", weights_only=True)
    criterion, other = OnlineLabelSmoothing(0.9, 5), OnlineLabelSmoothing(0.9, 5)
    criterion.load_state_dict(state)
    for place in ("cpu", torch.device("cpu"), {"cuda:3": "cpu"}):
        other.load_state_dict(torch.load(tmp_path / "gpu.pt", weights_only=True, map_location=place))
        assert same(criterion, other)
    with pytest.raises(RuntimeError, match="on the meta device"):
        other.load_state_dict(torch.load(tmp_path / "gpu.pt", weights_only=True, map_location="meta"))
    assert same(criterion, other)


def with_settings(state, **changes):
    record = {**json.loads(bytes(state["settings"].tolist())), **changes}
    state["settings"] = torch.frombuffer(bytearray(json.dumps(record).encode().ljust(1024)), dtype=torch.uint8)


REFUSED = [
    (lambda s: s.pop("sums"), "Missing key.*sums"),
    (lambda s: s.update(other=torch.ones(1)), "Unexpected key.*other"),
    (lambda s: s.update(sums=s["sums"][:4]), r"size mismatch for sums.*\(4, 5\).*\(5, 5\)"),
    (lambda s: s.update(sums=s["sums"].double()), "sums has dtype torch.float64"),
    (lambda s: s.update(soft_labels=s["soft_labels"].half()), "soft_labels has dtype torch.float16"),
    (lambda s: s.update(soft_labels=s["soft_labels"] * float("nan")), "finite"),
    (lambda s: s.update(counts=-s["counts"] - 1), "counts must be >= 0"),
    (lambda s: s.update(settings=torch.zeros(1024, dtype=torch.uint8)), "settings"),
    (lambda s: s.update(settings=s["settings"][:100]), "size mismatch for settings"),
    (lambda s: s.update(settings="x"), "settings must be a tensor, not str"),
    (lambda s: with_settings(s, alpha=7), r"settings: .*alpha = 7 is outside \[0, 1\]"),
    (lambda s: with_settings(s, alpha=float("nan")), "settings: .*alpha = NaN"),
    (lambda s: with_settings(s, alpha=10**400), "settings: "),
    (lambda s: with_settings(s, min_count=0), "settings: .*min_count"),
    (lambda s: with_settings(s, epoch=-3), "settings: .*epoch = -3"),
    (lambda s: (with_settings(s, weighted=True), s.update(class_weights=-torch.ones(5).double())), r"settings: .*weight.*\[0\] = -1 "),
    (lambda s: (with_settings(s, initial="matrix"), s.update(initial_soft_labels=-torch.ones(5, 5))), r"settings: .*\[0, 0\] = -1 "),
    (lambda s: (s.update(published()), s.update(update=torch.ones(5, 5, dtype=torch.int64))), "Unexpected key"),
    (lambda s: (s.clear(), s.update(published(4))), "size mismatch for supervise"),
    (lambda s: (s.clear(), s.update({**published(), "update": torch.ones(5, 5, dtype=torch.int64)})), "update has dtype torch.int64"),
    (lambda s: (s.clear(), s.update({**published(), "update": torch.full((5, 5), float("inf"))})), "finite"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_loading_is_strict_and_changes_all_or_nothing(number):
    change, message = REFUSED[number]
    state = dict(trained().state_dict())
    change(state)
    criterion = trained(epochs=1, weight=torch.rand(5))
    before = copy.deepcopy(criterion.state_dict())
    with pytest.raises(RuntimeError, match=message):
        criterion.load_state_dict(state)
    assert all(torch.equal(before[name], value) for name, value in criterion.state_dict().items())
    go_on(criterion)


class WithMore(OnlineLabelSmoothing):
    """A subclass with a parameter, a module and extra state."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.temperature, self.head, self.extra = torch.nn.Parameter(torch.ones(())), torch.nn.Linear(2, 2), 0

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


@pytest.mark.parametrize("assign", [False, True])
def test_what_a_subclass_adds_is_loaded(assign):
    criterion, other = torch.nn.Sequential(WithMore(0.5, 5)), torch.nn.Sequential(WithMore(0.5, 5))
    criterion[0](*batch(32, 5))
    criterion[0].extra = 7
    seen = []
    other[0].register_load_state_dict_pre_hook(lambda module, state, prefix, *others: seen.append(prefix))
    state = criterion.state_dict()
    assert not other.load_state_dict(state, assign=assign).missing_keys
    assert seen == ["0."]
    assert {name: str(value) for name, value in other.state_dict().items()} == {name: str(value) for name, value in state.items()}
    assert "soft_labels" in dict(other[0].named_buffers())
    with pytest.raises(RuntimeError, match='Unexpected.*"0.other"'):
        other.load_state_dict({**state, "0.other": torch.ones(1)})
    del state["0.temperature"]
    with pytest.raises(RuntimeError, match='Missing.*"0.temperature"'):
        other.load_state_dict(state)


def test_loading_values_into_nothing_is_said():
    with torch.device("meta"):
        criterion = OnlineLabelSmoothing(0.5, 5)
    with pytest.warns(UserWarning, match="meta device"):
        criterion.load_state_dict(OnlineLabelSmoothing(0.5, 5).state_dict())


def test_loading_not_strictly():
    criterion = trained()
    before = copy.deepcopy(criterion)
    assert criterion.load_state_dict({}, strict=False).missing_keys == ["soft_labels", "sums", "counts", "counters", "settings"]
    assert same(criterion, before)
    other = trained()
    assert criterion.load_state_dict({**other.state_dict(), "other": 1}, strict=False).unexpected_keys == ["other"]
    assert same(criterion, other)
    with pytest.raises(RuntimeError, match="size mismatch"):
        criterion.load_state_dict(trained(n_classes=4).state_dict(), strict=False)


def test_assigning_to_a_module_on_the_meta_device():
    criterion = trained()
    with torch.device("meta"):
        other = OnlineLabelSmoothing(0.5, 5)
    assert other.soft_labels.is_meta
    other.load_state_dict(criterion.state_dict(), assign=True)
    assert same(criterion, other)
    with torch.device("meta"):
        fresh = OnlineLabelSmoothing(0.5, 5, smoothing=0.2)
    fresh = fresh.to_empty(device="cpu")
    fresh.reset_parameters()
    assert same(fresh, OnlineLabelSmoothing(0.5, 5, smoothing=0.2))


def test_r25_files_cross_to_the_library_and_back(tmp_path):
    criterion = trained(weight=torch.rand(5), init=torch.rand(5, 5))
    path = tmp_path / "state.safetensors"
    criterion.save(path)
    other = ols.Criterion(5)
    other.load(path)
    for name in ("soft_labels", "sums", "counts", "counters"):
        np.testing.assert_array_equal(getattr(other, name), getattr(criterion, name).numpy())
    assert (other.epoch, other.alpha) == (criterion.epoch, criterion.alpha)
    assert path.read_bytes() == other.to_bytes() == criterion.to_bytes()
    logits, target = batch(32, 5)
    loss, _ = other(logits.numpy(), target.numpy())
    assert loss == criterion(logits, target).item()
    other.next_epoch()
    back = OnlineLabelSmoothing(0.9, 5)
    back.load_bytes(other.to_bytes())
    criterion.next_epoch()
    assert same(back, criterion)
    back.save(path)
    with pytest.raises(ValueError, match="classes"):
        OnlineLabelSmoothing(0.5, 6).load(path)
    with pytest.raises(OSError, match="nowhere"):
        back.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="."):
        back.load_bytes(path.read_bytes()[:-5])
    assert same(back, criterion)


def test_the_state_dict_fits_into_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    criterion = trained(weight=torch.rand(5))
    save_file(criterion.state_dict(), tmp_path / "model.safetensors")
    other = OnlineLabelSmoothing(0.5, 5)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert same(criterion, other)


@pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")
def test_a_distributed_checkpoint_of_one_process(tmp_path):
    import torch.distributed.checkpoint as dcp

    criterion = trained()
    dcp.save({"criterion": criterion.state_dict()}, checkpoint_id=tmp_path / "dcp")
    other = OnlineLabelSmoothing(0.9, 5)
    state = {"criterion": other.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path / "dcp")
    other.load_state_dict(state["criterion"])
    assert same(criterion, other)
    assert repr(criterion) == repr(other)


@pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "weight", "init", "others"])
def test_pytorchs_functions_for_distributed_state_dicts(options):
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    model, other = torch.nn.Sequential(torch.nn.Linear(3, 5), trained(**options)), torch.nn.Sequential(torch.nn.Linear(3, 5), trained(**options))
    model[1](*batch(32, 5))
    state = get_model_state_dict(model)
    assert list(state) == list(model.state_dict())
    set_model_state_dict(other, copy.deepcopy(state))
    assert same(model, other)
    criterion = model[1]
    for name, value in criterion.state_dict().items():
        assert torch.equal(getattr(criterion, name), value)
    assert (criterion.class_weights is None) == ("weight" not in options)
    assert (criterion.initial_soft_labels is None) == ("init" not in options)
