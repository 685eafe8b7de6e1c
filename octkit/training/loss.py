"""Dice + cross-entropy with deep supervision (team report, section on training).

    L_dice = -(2 / |K|) sum_k  sum_i(u_ik v_ik) / (sum_i u_ik + sum_i v_ik)

u is the softmax output, v the one-hot truth, k runs over the foreground classes, i over pixels. The best
total is -1: cross-entropy falls to 0 and Dice to -1. Pixels whose truth is `IGNORE` are left out of both.
"""

import torch
from torch.nn import functional as F

from octkit.data.labels import IGNORE
from octkit.training import ranks

SMOOTH = 1e-5  # keeps 0/0 away where a class is neither predicted nor present; small against one pixel


def dice_loss(logits: torch.Tensor, truth: torch.Tensor, batch_dice: bool) -> torch.Tensor:
    """Soft Dice loss over the foreground classes, in [-1, 0].

    Logits (batch, classes, *spatial), truth (batch, *spatial) integer labels. `batch_dice` takes the batch as one
    sample (2-D, where a patch may lack a class), else each sample is taken by itself and the mean is returned. Of a
    batch that several ranks share, both are over all of it.
    """
    probabilities = torch.softmax(logits.float(), dim=1)[:, 1:]
    # One byte a pixel and class: F.one_hot's eight take longer than the rest of this function.
    one_hot = torch.stack([truth == label for label in range(1, logits.shape[1])], dim=1)
    axes = tuple(range(2, logits.ndim))
    if (ignored := truth == IGNORE).any():
        probabilities = probabilities * ~ignored[:, None]
    intersection = (probabilities * one_hot).sum(axes)  # (batch, foreground classes)
    total = probabilities.sum(axes) + one_hot.sum(axes)
    if batch_dice:
        intersection, total = ranks.summed(torch.stack([intersection.sum(0), total.sum(0)]))
    dice = -((2 * intersection + SMOOTH) / (total + SMOOTH)).mean()
    return dice if batch_dice else ranks.summed(dice * ranks.share(logits))


def dice_and_cross_entropy(logits: torch.Tensor, truth: torch.Tensor, batch_dice: bool) -> torch.Tensor:
    """Dice loss plus mean cross-entropy over pixels; shapes as in `dice_loss`."""
    cross_entropy = F.cross_entropy(logits.float(), truth.long(), ignore_index=IGNORE)
    if (truth == IGNORE).all():  # the mean of none
        cross_entropy = torch.zeros_like(cross_entropy)
    return dice_loss(logits, truth, batch_dice) + ranks.summed(cross_entropy * ranks.share(logits))


def supervision_weights(outputs: int, dropped: int = 2) -> list[float]:
    """Weight of each decoder stage's output, full resolution first: halved at every stage, summing to 1.

    The `dropped` lowest carry no loss, but for nets so shallow that nothing would be left: 5 outputs -> 4/7, 2/7, 1/7,
    0, 0; 2 outputs -> 1, 0. The report leaves out "the two lowest stages of the decoder". nnU-Net's own comment says
    so, too, but its code drops one output: it counts the bottleneck, which has none, as the other.
    """
    supervised = max(1, outputs - dropped)
    weights = [0.5**i if i < supervised else 0.0 for i in range(outputs)]
    return [weight / sum(weights) for weight in weights]


def deep_supervision_loss(outputs: list[torch.Tensor], truth: torch.Tensor, batch_dice: bool, dropped: int = 2,
                          ) -> torch.Tensor:
    """Weighted sum of the loss over the decoder's outputs (batch, classes, *spatial_i), full resolution first.

    The truth (batch, *spatial), integer labels at full resolution, is scaled to each one's.
    """
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for logits, weight in zip(outputs, supervision_weights(len(outputs), dropped), strict=True):
        if weight:
            scaled, size = truth, logits.shape[2:]
            if size != truth.shape[1:]:  # nearest: a label in between two labels would be a third one
                scaled = F.interpolate(truth[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()
            total = total + weight * dice_and_cross_entropy(logits, scaled, batch_dice)
    return total
