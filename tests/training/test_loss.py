import math

import pytest
import torch

from octkit.data.labels import IGNORE
from octkit.training.loss import deep_supervision_loss, dice_and_cross_entropy, dice_loss, supervision_weights

# 2 x 2 px, 3 classes; logits of +-50 make the softmax a one-hot to machine precision.
TRUTH = torch.tensor([[[1, 1], [2, 0]]])


def logits_of(labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return 100 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float() - 50


def test_dice_by_hand():
    assert dice_and_cross_entropy(logits_of(TRUTH), TRUTH, batch_dice=True).item() == pytest.approx(-1, abs=1e-5)
    # predicted 1 1 / 0 0: class 1 has 2*2/(2+2) = 1, class 2 has 0/(0+1) = 0
    predicted = logits_of(torch.tensor([[[1, 1], [0, 0]]]))
    assert dice_loss(predicted, TRUTH, batch_dice=True).item() == pytest.approx(-0.5, abs=1e-4)


def test_uniform_logits_by_hand():
    # softmax 1/3 everywhere: class 1: 2*(2/3)/(4/3 + 2) = 0.4; class 2: 2*(1/3)/(4/3 + 1) = 2/7; entropy log 3
    value = dice_and_cross_entropy(torch.zeros(1, 3, 2, 2), TRUTH, batch_dice=True).item()
    assert value == pytest.approx(-(0.4 + 2 / 7) / 2 + math.log(3), abs=1e-4)


def test_batch_dice_takes_the_batch_as_one_sample():
    truth = torch.tensor([[[1, 1]], [[0, 0]]])  # the second sample lacks class 1
    predicted = logits_of(torch.tensor([[[1, 0]], [[1, 0]]]), 2)
    # together: 2*1/(2+2) = 0.5; apart: 2*1/(1+2) = 2/3 and 2*0/(1+0) = 0, mean 1/3
    assert dice_loss(predicted, truth, batch_dice=True).item() == pytest.approx(-0.5, abs=1e-4)
    assert dice_loss(predicted, truth, batch_dice=False).item() == pytest.approx(-1 / 3, abs=1e-4)


def test_a_class_in_neither_mask_counts_as_right_and_has_a_finite_gradient():
    logits = logits_of(torch.zeros(1, 2, 2, dtype=torch.long)).requires_grad_()
    loss = dice_loss(logits, torch.zeros(1, 2, 2, dtype=torch.long), batch_dice=True)
    loss.backward()
    assert loss.item() == pytest.approx(-1, abs=1e-4)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_the_loss_is_that_of_the_labelled_pixels(batch_dice):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 6, generator=generator).requires_grad_()
    truth = torch.randint(0, 3, (2, 4, 6), generator=generator)
    partly = truth.clone()
    partly[..., 4:] = IGNORE
    loss = dice_and_cross_entropy(logits, partly, batch_dice)
    expected = dice_and_cross_entropy(logits[..., :4], truth[..., :4], batch_dice)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not logits.grad[..., 4:].any() and logits.grad[..., :4].any()
    nothing = dice_and_cross_entropy(logits, torch.full_like(truth, IGNORE), batch_dice)
    assert nothing.item() == pytest.approx(-1)  # a Dice of nothing and nothing


@pytest.mark.parametrize(("outputs", "expected"), [
    (5, [4 / 7, 2 / 7, 1 / 7, 0, 0]), (3, [1, 0, 0]), (2, [1, 0]), (1, [1])])
def test_supervision_weights(outputs, expected):
    assert supervision_weights(outputs) == pytest.approx(expected)
    assert supervision_weights(outputs, 0)[-1] > 0
    assert supervision_weights(4, 1) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])  # nnU-Net's


def test_deep_supervision_is_the_weighted_sum_of_its_outputs():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (2, 16, 16), generator=generator)
    outputs = [torch.randn(2, 3, 16 // 2**i, 16 // 2**i, generator=generator) for i in range(4)]
    # nearest-exact takes the pixel whose centre is nearest: of 2 x 2 the lower right one
    halved = truth[:, 1::2, 1::2]
    expected = (2 / 3 * dice_and_cross_entropy(outputs[0], truth, True)
                + 1 / 3 * dice_and_cross_entropy(outputs[1], halved, True))
    torch.testing.assert_close(deep_supervision_loss(outputs, truth, True), expected)
    torch.testing.assert_close(deep_supervision_loss(outputs, truth, True, dropped=3),
                               dice_and_cross_entropy(outputs[0], truth, True))
