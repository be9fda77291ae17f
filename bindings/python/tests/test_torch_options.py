"""Options of the module and errors: ranges, presets, schedules of alpha, wrong tensors (rules R8, R9, R22)."""

import pytest
import torch
from test_torch_loss import batch, check

import ols
from ols import OnlineLabelSmoothing


@pytest.mark.parametrize("name", ["sample_weight", "lam", "grad_loss"])
def test_a_gradient_that_nobody_computes_is_refused(name):
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    value = torch.tensor(0.5) if name != "sample_weight" else torch.rand(6)
    arguments = {name: value.requires_grad_(), **({"target2": target.roll(1)} if name == "lam" else {})}
    uses = [criterion.loss_and_grad] if name == "grad_loss" else [criterion, criterion.loss_and_grad]
    for use in uses:
        with pytest.raises(RuntimeError, match=f"{name} requires a gradient, but the loss is differentiable with respect to the logits only"):
            use(logits, target, **arguments)
        assert criterion.counts.sum() == 0
        with torch.no_grad():
            use(logits, target, **arguments)
        if name != "grad_loss":
            criterion.take_back(logits, target, **arguments)  # not differentiable in any mode
        criterion.reset_parameters()


ERRORS = [
    (lambda z, y: (z.int(), y), TypeError, r"logits.*i32|logits.*int32"),
    (lambda z, y: (z, y.float()), TypeError, "target has dtype torch.float32, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, y.bool()), TypeError, "target has dtype torch.bool, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, y.short()), TypeError, "target has dtype torch.int16, but int64, int32 or uint8 is needed$"),
    (lambda z, y: (z, torch.softmax(z, 1)), TypeError, "target has dtype torch.float32.*; to mix two classes.* target and target2, and lam"),
    (
        lambda z, y: (z, torch.nn.functional.one_hot(y, 4)),
        ValueError,
        r"target has the logits' shape, \(6, 4\), but \(6,\) is needed; to mix two classes",
    ),
    (lambda z, y: (z, y, None, y.float(), 0.5), TypeError, "target2 has dtype torch.float32"),
    (lambda z, y: (z, y, torch._neg_view(torch.ones(6))), ValueError, "sample_weight.resolve_neg"),
    (lambda z, y: (z.to(torch.complex64), y), TypeError, "logits"),
    (lambda z, y: (z.to_sparse(), y), (TypeError, RuntimeError), "sparse"),
    (lambda z, y: (z.tolist(), y), TypeError, "logits must be a tensor, not list"),
    (lambda z, y: (z, y.tolist()), TypeError, "target must be a tensor, not list"),
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
    (lambda z, y: (z, y, [1.0] * 6), TypeError, "sample_weight must be a tensor, not list"),
    (lambda z, y: (z, y, None, y.tolist(), 0.5), TypeError, "target2 must be a tensor, not list"),
    (lambda z, y: (z, y, None, y, "half"), TypeError, "lam must be a number or a tensor, not str"),
    (lambda z, y: (z, y, None, y, "0.5"), TypeError, "lam must be a number or a tensor, not str"),
    (lambda z, y: (z, y, None, y, 10**400), ValueError, "lam is an integer beyond"),
    (lambda z, y: (z, y.to(torch.uint16)), TypeError, "target has dtype torch.uint16, but int64, int32 or uint8 is needed"),
    (lambda z, y: (z.to(torch.complex64), y), TypeError, "logits has dtype torch.complex64, which is not supported"),
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
    for trial in range(2):  # the second finds the plan that the first has prepared
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
        ({"n_classes": 2.5}, TypeError, "n_classes = 2.5 is not an integer"),
        ({"n_classes": 2**64 + 3}, ValueError, "n_classes = 18446744073709551619 is out"),
        ({"min_count": 2**64 + 1}, ValueError, "min_count = 18446744073709551617 is out"), ({"min_count": 1.5}, TypeError, "min_count = 1.5 is not"),
        ({"ignore_index": 2**64 - 100}, ValueError, "ignore_index = 18446744073709551516 is outside"),
        ({"alpha": "0.5"}, TypeError, "alpha = '0.5' is not a number"), ({"alpha": None}, TypeError, "alpha = None is not a number"),
        ({"alpha": torch.ones(2)}, TypeError, "alpha = tensor.* is not a number"), ({"momentum": 10**400}, ValueError, "momentum is an integer beyond"),
        ({"weight": [1, 2, 10**400]}, ValueError, "weight contains an integer beyond"), ({"weight": "x"}, TypeError, "weight: strings"),
        ({"weight": ["1", "1", "1"]}, TypeError, "weight: strings"), ({"weight": [1j, 1, 1]}, TypeError, "weight: complex numbers"),
        ({"n_classes": 2**31}, ValueError, r"n_classes = 2147483648 is outside \[2, 2147483647\]"),
        ({"init": "other"}, ValueError, "init = 'other' is not one of 'smoothing', 'uniform', 'zero', 'one_hot'$"),
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
        (2, ValueError, "alpha = 2"), ("0.5", TypeError, "alpha = '0.5' is not a number"), (None, TypeError, "alpha = None is not a number"),
        (10**400, ValueError, "alpha is an integer beyond"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            criterion.alpha = alpha
        assert criterion.alpha == 1.0
    criterion.alpha = torch.tensor(0.25)
    assert (criterion.alpha, type(criterion.alpha)) == (0.25, float)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by torch.jit itself
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
