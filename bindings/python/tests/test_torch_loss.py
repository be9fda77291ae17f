"""What the module computes, from every kind of tensor (rules R8, R9, R16, R17, R19, R20, R22, R26)."""

import threading
import warnings

import oracle
import pytest
import torch

import ols
from ols import OnlineLabelSmoothing

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def batch(*shape, dtype=torch.float32, right=0.6):
    """Logits of which many are classified right, and targets."""
    logits = torch.randn(shape, dtype=torch.float64) * 2
    target = torch.randint(shape[1], (shape[0], *shape[2:]))
    boost = (torch.rand(target.shape) < right).double() * 6
    logits.scatter_add_(1, target.unsqueeze(1), boost.unsqueeze(1))
    return logits.to(dtype), target


def check(criterion, logits, target, **arguments):
    """Loss, gradient and statistics of one training step against the oracle."""
    sums, counts = criterion.sums.clone(), criterion.counts.clone()
    z = logits.detach().requires_grad_()
    loss = criterion(z, target, **arguments)
    upstream = torch.rand(loss.shape, dtype=loss.dtype) + 0.5
    loss.backward(upstream)
    exact = z.detach().double().requires_grad_()
    options = {
        "weight": None if criterion._weights is None else criterion._weights,
        "ignore_index": criterion.ignore_index,
        "reduction": criterion.reduction,
    }
    expected = oracle.loss(exact, target, criterion.soft_labels, criterion.alpha, **options, **arguments)
    expected.backward(upstream.double())
    near = TOLERANCE[logits.dtype]
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=near, atol=near)
    assert z.grad.dtype == logits.dtype
    assert loss.dtype == (torch.float64 if logits.dtype is torch.float64 else torch.float32)
    if criterion.training and "target2" not in arguments and "sample_weight" not in arguments:
        more, right = oracle.statistics(z.detach(), target, criterion.ignore_index)
        assert torch.equal(criterion.counts - counts, right)
        torch.testing.assert_close((criterion.sums - sums).double() / 2**30, more, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(32, 10), (4, 7, 5), (2, 5, 3, 4), (2, 3, 2, 2, 2), (1, 2), (3, 257)])
def test_r17_dtypes_reductions_and_shapes(dtype, reduction, shape):
    criterion = OnlineLabelSmoothing(0.3, shape[1], reduction=reduction)
    for _ in range(2):
        check(criterion, *batch(*shape, dtype=dtype))
        criterion.next_epoch()


@pytest.mark.parametrize("index", [torch.int64, torch.int32, torch.uint8])
def test_r17_targets_of_every_dtype_give_the_same_bits(index):
    logits, target = batch(16, 10)
    one, other = OnlineLabelSmoothing(0.5, 10), OnlineLabelSmoothing(0.5, 10)
    assert torch.equal(one(logits, target), other(logits, target.to(index)))
    assert torch.equal(one.sums, other.sums)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_targets_and_ignored_samples(reduction):
    logits, target = batch(24, 6)
    target[::5] = -1
    target2 = target.roll(1)
    criterion = OnlineLabelSmoothing(0.4, 6, weight=torch.rand(6) + 0.1, ignore_index=-1, reduction=reduction)
    v = torch.rand(24)
    v[3] = 0
    for arguments in (
        {}, {"sample_weight": v}, {"sample_weight": v.double()}, {"target2": target2, "lam": 0.3}, {"target2": target2, "lam": torch.rand(24)},
        {"target2": target2, "lam": torch.tensor(0.7), "sample_weight": v},
    ):  # fmt: skip
        check(criterion, logits, target, **arguments)


@pytest.mark.parametrize("name", ["row-major", "column-major", "class last", "padded", "every second row", "expanded", "image, channels last"])
def test_r16_every_layout_is_read_where_it_lies(name):
    logits, target = {
        "row-major": lambda: batch(8, 5),
        "column-major": lambda: (lambda z, y: (z.t().contiguous().t(), y))(*batch(8, 5)),
        "class last": lambda: (lambda z, y: (z.movedim(1, -1).contiguous().movedim(-1, 1), y))(*batch(4, 5, 6)),
        "padded": lambda: (lambda z, y: (torch.nn.functional.pad(z, (1, 3))[:, 1:6], y))(*batch(8, 5)),
        "every second row": lambda: (lambda z, y: (z[::2], y[::2]))(*batch(16, 5)),
        "expanded": lambda: (lambda z, y: (z.expand(8, 5), y.expand(8)))(*batch(1, 5)),
        "image, channels last": lambda: (lambda z, y: (z.to(memory_format=torch.channels_last), y))(*batch(2, 5, 3, 4)),
    }[name]()  # fmt: skip
    criterion = OnlineLabelSmoothing(0.5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ols.CopyWarning)
        check(criterion, logits, target)
    assert [plan.logits_data.value for plan in criterion._engine._plans.values()] == [logits.data_ptr()]
    same = OnlineLabelSmoothing(0.5, 5)
    assert torch.equal(same(logits.contiguous(), target.contiguous()), OnlineLabelSmoothing(0.5, 5)(logits, target))


def test_r16_the_address_is_the_tensors():
    logits, target = batch(8, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    criterion(logits, target)
    (plan,) = criterion._engine._plans.values()
    assert (plan.logits_data.value, plan.targets_data.value) == (logits.data_ptr(), target.data_ptr())
    assert (plan.batch.logits.data, plan.batch.targets.data) == (logits.data_ptr(), target.data_ptr())


def test_r16_what_no_three_strides_walk_is_copied_and_said():
    z, y = batch(2, 5, 3, 4)
    logits, target = z.transpose(2, 3).contiguous().transpose(2, 3), y.transpose(1, 2).contiguous().transpose(1, 2)
    criterion = OnlineLabelSmoothing(0.5, 5)
    with pytest.warns(ols.CopyWarning) as said:
        loss = criterion(logits, target)
    assert [str(one.message).split(":")[0] for one in said] == ["logits is copied", "target is copied"]
    assert torch.equal(loss, OnlineLabelSmoothing(0.5, 5)(z, y))
    with pytest.warns(ols.CopyWarning):
        check(criterion, logits, target)
    with pytest.raises(ValueError, match="does not collapse"):
        criterion.loss_and_grad(logits, target, inplace=True)
    with pytest.warns(ols.CopyWarning):
        criterion.take_back(logits, target)


def test_r19_no_sample():
    for reduction, expected in (("mean", torch.zeros(())), ("sum", torch.zeros(())), ("none", torch.zeros(0))):
        criterion = OnlineLabelSmoothing(0.5, 5, reduction=reduction)
        logits = torch.zeros(0, 5, requires_grad=True)
        loss = criterion(logits, torch.zeros(0, dtype=torch.int64))
        assert torch.equal(loss, expected)
        loss.sum().backward()
        assert logits.grad.shape == (0, 5)
    assert OnlineLabelSmoothing(0.5, 3)(torch.ones(2, 3), torch.tensor([-100, -100])) == 0


def test_loss_and_grad_is_the_step_without_autograd():
    logits, target = batch(64, 10)
    one, other = OnlineLabelSmoothing(0.5, 10), OnlineLabelSmoothing(0.5, 10)
    z = logits.clone().requires_grad_()
    loss = one(z, target)
    loss.backward()
    found, gradient = other.loss_and_grad(logits, target)
    assert torch.equal(found, loss)
    assert torch.equal(gradient, z.grad)
    assert torch.equal(one.sums, other.sums)
    scaled = other.loss_and_grad(logits, target, grad_loss=torch.tensor(4.0))[1]
    assert torch.equal(scaled, 4 * gradient)


def test_r20_in_place_takes_no_memory_and_is_asked_for():
    logits, target = batch(64, 10)
    kept = logits.clone()
    criterion = OnlineLabelSmoothing(0.5, 10)
    loss, expected = criterion.loss_and_grad(logits, target)
    assert torch.equal(logits, kept)
    version = logits._version
    found, gradient = criterion.loss_and_grad(logits, target, inplace=True)
    assert gradient.data_ptr() == logits.data_ptr()
    assert torch.equal(found, loss)
    assert torch.equal(logits, expected)
    assert logits._version > version
    each = OnlineLabelSmoothing(0.5, 10, reduction="none")
    assert each.loss_and_grad(kept, target, inplace=True)[0].shape == (64,)


def test_in_place_makes_autograd_refuse_what_saved_the_logits():
    z = torch.randn(4, 3, requires_grad=True)
    logits = z * 2
    other = logits.exp()  # saves its output
    another = logits.pow(2)  # saves its input
    OnlineLabelSmoothing(0.5, 3).loss_and_grad(logits, torch.tensor([0, 1, 2, 0]), inplace=True)
    other.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        another.sum().backward()


@pytest.mark.filterwarnings("ignore::ols.CopyWarning")  # of 16-bit logits backward copies as well
def test_what_overlaps_is_copied_where_its_gradient_lies_in_another_order():
    base, target = torch.randn(4000), torch.randint(3, (2, 4, 5))
    for dtype in (torch.float32, torch.bfloat16):
        logits = base.to(dtype).as_strided((2, 3, 4, 5), (3, 40, 5, 1))
        criterion, other = OnlineLabelSmoothing(0.5, 3), OnlineLabelSmoothing(0.5, 3)
        one, two = logits.detach().requires_grad_(), logits.contiguous().requires_grad_()
        with pytest.warns(ols.CopyWarning, match=r"logits is copied: its gradient's shape \(2, 3, 4, 5\) with strides \(5, 40, 10, 1\) does not"):
            loss = criterion(one, target)
        loss.backward(torch.tensor(3.0))
        expected = other(two, target)
        expected.backward(torch.tensor(3.0))
        assert torch.equal(loss, expected)
        assert torch.equal(one.grad, two.grad)
        criterion.take_back(logits, target)
        assert criterion.sums.abs().sum() == 0


def test_a_weight_that_negates_is_not_read_as_it_lies():
    logits, target = batch(8, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    weight = torch.complex(torch.ones(8), torch.full((8,), 2.0))
    criterion(logits, target, weight.imag)  # what the next call meets is prepared
    with pytest.raises(ValueError, match="sample_weight.resolve_neg"):
        criterion(logits, target, weight.conj().imag)


@pytest.mark.parametrize("name", ["sample_weight", "lam", "grad_loss"])
def test_a_gradient_that_nobody_computes_is_refused(name):
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    value = torch.tensor(0.5) if name != "sample_weight" else torch.rand(6)
    arguments = {name: value.requires_grad_(), **({"target2": target.roll(1)} if name == "lam" else {})}
    uses = [criterion.loss_and_grad] if name == "grad_loss" else [criterion, criterion.loss_and_grad]
    for use in uses:
        with pytest.raises(RuntimeError, match=f"{name} requires a gradient, but the loss is differentiated by its logits alone"):
            use(logits, target, **arguments)
        assert criterion.counts.sum() == 0
        with torch.no_grad():
            use(logits, target, **arguments)
        if name != "grad_loss":
            criterion.take_back(logits, target, **arguments)  # gives no gradient in any mode
        criterion.reset_parameters()


def test_a_view_that_negates_is_not_read_as_it_lies():
    logits = torch.view_as_complex(torch.randn(8, 5, 2)).conj().imag
    assert logits.is_neg()
    target = torch.arange(8) % 5
    criterion = OnlineLabelSmoothing(0.5, 5)
    expected = criterion(logits.resolve_neg(), target)
    with pytest.raises(ValueError, match="resolve_neg"):
        criterion(logits, target)
    assert torch.equal(criterion.eval()(logits.resolve_neg(), target), expected)


def test_in_place_takes_no_memory_at_all():
    logits, target = batch(64, 1000)
    criterion = OnlineLabelSmoothing(0.5, 1000)
    with torch.profiler.profile(profile_memory=True) as profile:
        criterion.loss_and_grad(logits, target, inplace=True)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages() if event.key.startswith("aten::"))
    assert allocated < 4096


def test_statistics_do_not_ask_for_gradients():
    logits, target = batch(32, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    with torch.no_grad():
        criterion(logits, target)
    expected = criterion.sums.clone()
    criterion(logits.requires_grad_(), target)
    assert torch.equal(criterion.sums, 2 * expected)
    criterion.eval()(logits, target)
    assert torch.equal(criterion.sums, 2 * expected)
    criterion.train().step(torch.softmax(logits.detach().double(), 1), target)
    assert torch.equal(criterion.counts * 2, 3 * criterion.counts - criterion.counts)
    torch.testing.assert_close(criterion.sums.double(), 3 * expected.double(), rtol=1e-5, atol=2000.0)


def test_step_in_evaluation_mode_changes_nothing():
    criterion = OnlineLabelSmoothing(0.5, 3).eval()
    criterion.step(torch.eye(3), torch.arange(3))
    assert criterion.counts.sum() == 0
    criterion.train().step(torch.eye(3), torch.arange(3))
    assert criterion.counts.tolist() == [1, 1, 1]
    criterion.eval().step(torch.eye(3), torch.arange(3), take_back=True)
    assert criterion.sums.abs().sum() == 0


def test_taking_back_is_exact_and_refuses_more_than_there_is():
    criterion = OnlineLabelSmoothing(0.5, 10)
    first, second = batch(32, 10), batch(8, 10)
    v = torch.rand(8)
    criterion(*first)
    before = criterion.sums.clone(), criterion.counts.clone(), criterion.counters.clone()
    second[0][3, 2] = float("nan")
    criterion(*second, sample_weight=v, target2=second[1].roll(1), lam=0.6)
    assert criterion.counters[0] == 1
    criterion.eval().take_back(*second, sample_weight=v, target2=second[1].roll(1), lam=0.6)
    assert all(torch.equal(a, b) for a, b in zip(before, (criterion.sums, criterion.counts, criterion.counters)))
    criterion.take_back(*first)
    with pytest.raises(RuntimeError):
        criterion.take_back(*first)
    assert criterion.counts.sum() == 0


ERRORS = [
    (lambda z, y: (z.int(), y), TypeError, r"logits.*i32|logits.*int32"),
    (lambda z, y: (z, y.float()), TypeError, "target has dtype torch.float32, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, y.bool()), TypeError, "target has dtype torch.bool, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, y.short()), TypeError, "target has dtype torch.int16, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, torch.softmax(z, 1)), TypeError, "target has dtype torch.float32.*; a mixture .* target and target2, and lam"),
    (lambda z, y: (z, torch.nn.functional.one_hot(y, 4)), ValueError, r"target has the logits' shape, \(6, 4\), but \(6,\) is needed; a mixture"),
    (lambda z, y: (z, y, None, y.float(), 0.5), TypeError, "target2 has dtype torch.float32"),
    (lambda z, y: (z, y, torch._neg_view(torch.ones(6))), ValueError, "sample_weight.resolve_neg"),
    (lambda z, y: (z.to(torch.complex64), y), TypeError, "logits"),
    (lambda z, y: (z.to_sparse(), y), (TypeError, RuntimeError), "sparse"),
    (lambda z, y: (z.tolist(), y), TypeError, "logits is a list, not a tensor"),
    (lambda z, y: (z, y.tolist()), TypeError, "target is a list, not a tensor"),
    (lambda z, y: (z[:, :3], y), ValueError, "logits"),
    (lambda z, y: (z[0], y[0]), ValueError, "logits"),
    (lambda z, y: (z, y[:-1]), ValueError, "target"),
    (lambda z, y: (z.unsqueeze(2), y), ValueError, "target"),
    (lambda z, y: (z, y.clone().fill_(4)), IndexError, r"target\[0\] = 4 is outside \[0, 4\) and is not ignore_index \(-100\)"),
    (lambda z, y: (z, y.clone().fill_(-7)), IndexError, r"target\[0\] = -7"),
    (lambda z, y: (z, y, torch.ones(3)), ValueError, "sample_weight.shape"),
    (lambda z, y: (z, y, -torch.ones(6)), ValueError, r"sample_weight\[0\] = -1"),
    (lambda z, y: (z, y, torch.ones(6).half()), TypeError, "sample_weight.dtype"),
    (lambda z, y: (z, y, None, y), ValueError, "lam"),
    (lambda z, y: (z, y, None, None, 0.5), ValueError, "lam is given, but target2 is not"),
    (lambda z, y: (z, y, None, y, 1.5), ValueError, r"lam\[0\] = 1.5"),
    (lambda z, y: (z, y, [1.0] * 6), TypeError, "sample_weight is a list"),
    (lambda z, y: (z, y, None, y.tolist(), 0.5), TypeError, "target2 is a list"),
    (lambda z, y: (z, y, None, y, "half"), TypeError, "lam is a str"),
    (lambda z, y: (z, y, None, y, "0.5"), TypeError, "lam is a str"),
    (lambda z, y: (z, y, None, y, 10**400), ValueError, "lam is an integer beyond"),
    (lambda z, y: (z.to("meta"), y), RuntimeError, "meta"),
    (lambda z, y: (z, y.to("meta")), RuntimeError, "meta"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_r08_r09_bad_input_costs_an_error_and_nothing_else(number):
    change, kind, message = ERRORS[number]
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    criterion(logits, target)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    for trial in range(2):  # the second meets what the first has prepared
        for use in (criterion, criterion.loss_and_grad):
            with pytest.raises(kind, match=message):
                use(*change(logits, target))
        if trial:
            criterion.eval()
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())
    criterion(logits, target)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"alpha": 1.5}, ValueError, r"alpha = 1\.5 is outside \[0, 1\]"), ({"alpha": float("nan")}, ValueError, "alpha"),
        ({"smoothing": 1.5}, ValueError, "smoothing = 1.5"), ({"n_classes": 1}, ValueError, "n_classes = 1"),
        ({"n_classes": 0}, ValueError, "n_classes = 0"), ({"n_classes": -3}, ValueError, "n_classes = -3"),
        ({"n_classes": 2.5}, TypeError, "n_classes = 2.5 is no integer"), ({"n_classes": 2**64 + 3}, ValueError, "n_classes = 18446744073709551619 is out"),
        ({"min_count": 2**64 + 1}, ValueError, "min_count = 18446744073709551617 is out"), ({"min_count": 1.5}, TypeError, "min_count = 1.5 is no"),
        ({"ignore_index": 2**64 - 100}, ValueError, "ignore_index = 18446744073709551516 is outside"),
        ({"alpha": "0.5"}, TypeError, "alpha = '0.5' is no number"), ({"alpha": None}, TypeError, "alpha = None is no number"),
        ({"alpha": torch.ones(2)}, TypeError, "alpha = tensor.* is no number"), ({"momentum": 10**400}, ValueError, "momentum is an integer beyond"),
        ({"weight": [1, 2, 10**400]}, ValueError, "weight holds an integer beyond"), ({"weight": "x"}, ValueError, "weight: "),
        ({"init": "other"}, ValueError, "init = 'other' is none of 'smoothing', 'uniform', 'zero', 'one_hot'$"),
        ({"empty_class": "x"}, ValueError, "empty_class = 'x'"),
        ({"reduction": "avg"}, ValueError, "reduction = 'avg'"), ({"reduction": None}, TypeError, "reduction"),
        ({"momentum": 1.0}, ValueError, "momentum = 1"), ({"min_count": 0}, ValueError, "min_count = 0"),
        ({"freeze_above": 0.0}, ValueError, "freeze_above"), ({"weight": [1.0, 2.0]}, ValueError, "weight.shape"),
        ({"weight": [1.0, -2.0, 1.0]}, ValueError, r"weight\[1\] = -2"), ({"init": torch.ones(2, 3)}, ValueError, "init.shape"),
        ({"init": -torch.ones(3, 3)}, ValueError, r"init\[0, 0\] = -1"), ({"init": "matrix"}, ValueError, "matrix itself"),
    ],
)  # fmt: skip
def test_options_are_checked(options, kind, message):
    with pytest.raises(kind, match=message):
        OnlineLabelSmoothing(**{"alpha": 0.5, "n_classes": 3, **options})


def test_options_reach_the_library():
    criterion = OnlineLabelSmoothing(0.5, 3, init="uniform", empty_class="one_hot", min_count=2, momentum=0.25, freeze_above=0.99)
    assert torch.equal(criterion.soft_labels, torch.full((3, 3), 1 / 3))
    logits = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0]])
    criterion(logits, torch.tensor([0, 0, 1]))
    report = criterion.next_epoch()
    assert (report.rows_measured, report.rows_one_hot, report.samples_accumulated) == (1, 2, 3)
    p = torch.softmax(logits[0].double(), 0)
    torch.testing.assert_close(criterion.soft_labels[0].double(), 0.25 / 3 + 0.75 * p, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(criterion.soft_labels[1], torch.tensor([0.25 / 3, 0.75 + 0.25 / 3, 0.25 / 3]))
    matrix = torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0.25, 0.25, 0.5]])
    assert torch.equal(OnlineLabelSmoothing(0.5, 3, init=matrix).soft_labels, matrix)
    assert torch.equal(OnlineLabelSmoothing(0.5, 3, init=matrix.tolist()).supervise, matrix.t())


def test_r22_presets_are_the_librarys():
    assert "init='zero', empty_class='uniform'" in repr(OnlineLabelSmoothing.paper(0.5, 3))
    assert "smoothing=0.1, empty_class='zero'" in repr(OnlineLabelSmoothing.reference(0.5, 3))
    assert "smoothing=0.2, empty_class='zero', min_count=5" in repr(OnlineLabelSmoothing.reference(0.5, 3, smoothing=0.2, min_count=5))
    assert ols.Criterion.paper(3, alpha=0.25).alpha == 0.25
    assert repr(ols.Criterion.paper(3)) == "Criterion(alpha=0.5, n_classes=3, init='zero', empty_class='uniform', reduction='mean')"


def test_alpha_may_be_scheduled():
    logits, target = batch(16, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    for alpha in (0.0, 0.25, 1.0):
        criterion.alpha = alpha
        assert criterion.alpha == alpha
        check(criterion, logits, target)
    torch.testing.assert_close(criterion(logits, target), torch.nn.functional.cross_entropy(logits, target))
    for alpha, kind, message in (
        (2, ValueError, "alpha = 2"), ("0.5", TypeError, "alpha = '0.5' is no number"), (None, TypeError, "alpha = None is no number"),
        (10**400, ValueError, "alpha is an integer beyond"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            criterion.alpha = alpha
        assert criterion.alpha == 1.0
    criterion.alpha = torch.tensor(0.25)
    assert (criterion.alpha, type(criterion.alpha)) == (0.25, float)


def test_alpha_0_is_label_smoothing_in_the_first_epoch():
    logits, target = batch(16, 5)
    torch.testing.assert_close(OnlineLabelSmoothing(0.0, 5, 0.2)(logits, target), ols.LabelSmoothingLoss(5, 0.2)(logits, target))


def test_r26_the_published_names_show_the_state():
    criterion = OnlineLabelSmoothing(0.5, 4, init=torch.arange(16.0).reshape(4, 4))
    criterion(*batch(32, 4))
    assert criterion.supervise.data_ptr() == criterion.soft_labels.data_ptr()
    assert torch.equal(criterion.supervise[:, 1], criterion.soft_labels[1])
    torch.testing.assert_close(criterion.update.sum(0), criterion.idx_count.float())
    torch.testing.assert_close(criterion.update, (criterion.sums.double() / 2**30).float().t())
    assert criterion.idx_count is criterion.counts
    soft_labels, sums = criterion.soft_labels, criterion.sums
    new = criterion.update / criterion.idx_count
    criterion.next_epoch()
    assert criterion.soft_labels is soft_labels
    assert criterion.sums is sums
    measured = ~new.isnan().any(0)
    torch.testing.assert_close(criterion.supervise[:, measured], new[:, measured])


def test_what_the_caller_writes_is_used():
    criterion = OnlineLabelSmoothing(0.0, 3)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        criterion.supervise.copy_(torch.eye(3))
    torch.testing.assert_close(criterion(logits, target), torch.nn.functional.cross_entropy(logits, target))
    criterion.set_soft_labels(torch.full((3, 3), 1 / 3))
    torch.testing.assert_close(criterion(logits, target), -torch.log_softmax(logits, 1).mean())
    with pytest.raises(ValueError, match=r"soft_labels\[0, 0\] = -1"):
        criterion.set_soft_labels(-torch.ones(3, 3))


def test_reports_are_read_late_and_stay():
    criterion = OnlineLabelSmoothing(0.5, 4)
    logits, target = 9 * torch.eye(4), torch.arange(4)
    criterion(logits, target)
    first = criterion.next_epoch()
    assert "rows_measured" not in first.__dict__
    criterion(logits[:2], target[:2])
    second = criterion.next_epoch()
    assert (first.epoch, first.rows_measured, first.samples_accumulated) == (1, 4, 4)
    assert (second.epoch, second.rows_measured, second.rows_kept) == (2, 2, 2)
    third = criterion.next_epoch()
    criterion.load_state_dict(criterion.state_dict())
    assert third.as_dict()["rows_kept"] == 4
    assert second != third
    assert repr(second) == "Report(epoch=2, rows_measured=2, rows_kept=2, samples_accumulated=2)"


def test_r14_threads_share_a_criterion():
    criterion, alone = OnlineLabelSmoothing(0.5, 6), OnlineLabelSmoothing(0.5, 6)
    batches = [batch(16 + number, 6) for number in range(8)]
    expected = [OnlineLabelSmoothing(0.5, 6).loss_and_grad(*b) for b in batches]
    wrong = []

    def work(number):
        for turn in range(60):
            n = (number + turn) % 8
            z = batches[n][0].clone().requires_grad_()
            loss = criterion(z, batches[n][1])
            loss.backward()
            if not torch.equal(loss, expected[n][0]) or not torch.equal(z.grad, expected[n][1]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    for number in range(8):
        for turn in range(60):
            alone(*batches[(number + turn) % 8])
    assert wrong == []
    assert torch.equal(criterion.sums, alone.sums)


def test_threads_follow_pytorch_unless_told(threads):
    criterion = OnlineLabelSmoothing(0.5, 6)
    logits, target = batch(16, 6)

    def used():
        criterion(logits, target)
        return criterion._engine.core.handle.options().n_threads

    torch.set_num_threads(1)
    assert used() == 1
    report = criterion.next_epoch()
    torch.set_num_threads(2)
    assert used() == 2
    ols.set_num_threads(3)
    assert used() == 3
    ols.set_num_threads(0)
    assert used() == 0
    assert ols.get_num_threads() == 0
    ols.set_num_threads(None)
    assert used() == 2
    assert (criterion.epoch, report.epoch) == (1, 1)
    with pytest.raises(ValueError, match="n = -1"):
        ols.set_num_threads(-1)


def test_label_smoothing_loss_spreads_over_the_others():
    logits, target = batch(12, 5)
    log_p = torch.log_softmax(logits, 1)
    q = torch.full((12, 5), 0.2 / 4).scatter_(1, target[:, None], 0.8)
    torch.testing.assert_close(ols.LabelSmoothingLoss(5, 0.2)(logits, target), -(q * log_p).sum(1).mean())
    weight = torch.rand(5)
    torch.testing.assert_close(ols.LabelSmoothingLoss(5, 0.2, weight=weight)(logits, target), -(q * weight * log_p).sum(1).mean())
    images, labels = batch(2, 5, 3)
    torch.testing.assert_close(ols.LabelSmoothingLoss(5, 0.2, dim=1)(images, labels), ols.LabelSmoothingLoss(5, 0.2)(images.movedim(1, -1), labels))
    torch.testing.assert_close(ols.LabelSmoothingLoss(5, 0.0)(logits, target), torch.nn.functional.cross_entropy(logits, target))
    assert ols.LabelSmoothingLoss(5, weight=weight).state_dict() == {}
    assert ols.LabelSmoothingLoss(5)(logits[:0], target[:0]) == 0
    for wrong in (lambda: ols.LabelSmoothingLoss(5, 1.5), lambda: ols.LabelSmoothingLoss(1), lambda: ols.LabelSmoothingLoss(4)(logits, target),
                  lambda: ols.LabelSmoothingLoss(5, weight=torch.ones(3)), lambda: ols.LabelSmoothingLoss(5)(logits, target[:3])):  # fmt: skip
        with pytest.raises(ValueError, match="classes|smoothing|weight|target"):
            wrong()
    for label in (-100, -1, 5):
        with pytest.raises(IndexError, match=f"{label} is out of bounds"):
            ols.LabelSmoothingLoss(5)(logits, target.clone().fill_(label))


def test_label_smoothing_loss_takes_integers_where_integers_are_meant():
    logits, target = batch(12, 5)
    expected = ols.LabelSmoothingLoss(5)(logits, target)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        assert torch.equal(ols.LabelSmoothingLoss(5)(logits, target.to(dtype)), expected)
    for dtype in (torch.float32, torch.float64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"target has dtype {dtype}, but labels are integers"):
            ols.LabelSmoothingLoss(5)(logits, target.to(dtype))
    for wrong, message in (((5.0,), "classes = 5.0 is no integer"), ((5, 0.1, 1.0), "dim = 1.0 is no integer"), ((5, "x"), "smoothing = 'x' is no")):
        with pytest.raises(TypeError, match=message):
            ols.LabelSmoothingLoss(*wrong)
    with pytest.raises(ValueError, match=r"logits of shape \(12, 5\) do not have 5 classes in dimension 7"):
        ols.LabelSmoothingLoss(5, dim=7)(logits, target)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit itself
def test_a_trace_that_would_record_the_loss_as_a_constant_is_refused():
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.criterion = criterion

        def forward(self, logits, target):
            return self.criterion(2 * logits, target)

    for module in (criterion, Model()):
        with pytest.raises(RuntimeError, match="torch.jit.trace would record the loss of this batch as a constant"):
            torch.jit.trace(module, (logits, target))
    assert criterion.counts.sum() == 0


def test_repr_shows_the_options():
    criterion = OnlineLabelSmoothing(0.5, 7, momentum=0.5, ignore_index=3, weight=torch.ones(7))
    assert repr(criterion) == (
        "OnlineLabelSmoothing(alpha=0.5, n_classes=7, smoothing=0.1, empty_class='keep', momentum=0.5, ignore_index=3, weight=<given>, reduction='mean')"
    )
