"""`LabelSmoothingLoss`, plain label smoothing."""

import pytest
import torch
from test_torch_loss import batch

import ols
from ols import OnlineLabelSmoothing


def test_alpha_0_is_label_smoothing_in_the_first_epoch():
    logits, target = batch(16, 5)
    torch.testing.assert_close(OnlineLabelSmoothing(0.0, 5, 0.2)(logits, target), ols.LabelSmoothingLoss(5, 0.2)(logits, target))


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
    for wrong, message in (
        ((5.0,), "classes = 5.0 is not an integer"),
        ((5, 0.1, 1.0), "dim = 1.0 is not an integer"),
        ((5, "x"), "smoothing = 'x' is not"),
    ):
        with pytest.raises(TypeError, match=message):
            ols.LabelSmoothingLoss(*wrong)
    with pytest.raises(TypeError, match="weight must be a tensor, not list"):
        ols.LabelSmoothingLoss(5, weight=[1.0] * 5)
    with pytest.raises(ValueError, match=r"logits of shape \(12, 5\) do not have 5 classes in dimension 7"):
        ols.LabelSmoothingLoss(5, dim=7)(logits, target)
