"""Bias correction: by hand for one layer, in order, on a network, and what it is worth."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.correction import MAX_FRAMES, FrameSample, correct_biases, layer_means
from edgepkd.quantize.fidelity import sqnr_db
from edgepkd.quantize.network import folded
from edgepkd.quantize.spec import QuantSpec
from tests.models.networks import small_network
from tests.quantize.quantized import small_int8, some_frames

CORRECTED = QuantSpec(bias_correction=True)


class Rounded(nn.Module):
    """Two layers whose inputs are rounded down: a shift that no chance makes up for."""

    def __init__(self, *, rounds: bool) -> None:
        super().__init__()
        self.rounds = rounds
        self.conv = nn.Conv2d(1, 2, 1)
        self.fc = nn.Linear(2, 3)
        for tensor, value in ((self.conv.weight, 2.0), (self.conv.bias, 0.5),
                              (self.fc.weight, 1.0), (self.fc.bias, 0.0)):
            nn.init.constant_(tensor, value)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, H, W] -> [N, 3]."""
        features = self.conv(x.floor() if self.rounds else x).mean(dim=(2, 3))
        out: Tensor = self.fc(features.floor() if self.rounds else features)
        return out


def test_each_layer_takes_back_its_shift_after_those_before_it() -> None:
    frames = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)
    plain, rounded = Rounded(rounds=False), Rounded(rounds=True)
    expected = plain(frames).mean(dim=0)
    correct_biases(rounded, frames, means=layer_means(plain, frames))  # type: ignore[arg-type]
    # conv: mean 2 * 0.5 + 0.5 = 1.5, of rounded inputs 0.5: + 1. fc: mean 3; inputs are now 1.5
    # each, rounded to 1: 2, so + 1. Without the first correction it would be + 3.
    torch.testing.assert_close(rounded.conv.bias, torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(rounded.fc.bias, torch.ones(3))
    torch.testing.assert_close(rounded(frames).mean(dim=0), expected)


def test_logits_are_those_of_the_corrected_network() -> None:
    plain, frames = small_network(), some_frames()
    quantized = small_int8(network=plain)
    means = layer_means(folded(plain), frames)
    said = correct_biases(quantized, frames, means=means)
    with torch.no_grad():
        for mine, again in zip(said, quantized(frames), strict=True):
            torch.testing.assert_close(mine, again, atol=1e-4, rtol=1e-4)
    found = layer_means(quantized, frames)
    for name, mean in means.items():
        torch.testing.assert_close(found[name], mean, atol=1e-4, rtol=1e-3)


def test_correction_moves_biases_alone_and_is_the_same_every_time() -> None:
    plain = small_network()
    before, after, again = (small_int8(spec, network=plain).state_dict()
                            for spec in (QuantSpec(), CORRECTED, CORRECTED))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.endswith(".bias") for name in moved)
    assert {f"segments.{k}.head.fc.bias" for k in range(4)} <= moved
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_layers_that_stay_float_are_corrected_for_their_inputs() -> None:
    keep = ("segments.3.head.fc",)
    before, after = (small_int8(QuantSpec(keep_float=keep, bias_correction=on)).state_dict()
                     for on in (False, True))
    assert not torch.equal(before["segments.3.head.fc.bias"], after["segments.3.head.fc.bias"])


def answers(network: SegmentedNetwork, frames: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack(network(frames))


def test_answers_to_other_frames_are_closer_to_fp32() -> None:
    plain = small_network("efficientnet_lite0")
    frames = some_frames(16, seed=8)
    reference = answers(folded(plain), frames)
    found = [sqnr_db(reference, answers(small_int8(spec, network=plain), frames))
             for spec in (QuantSpec(), CORRECTED)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1] > found[0] + 1


def test_frames_are_kept_evenly_up_to_a_limit() -> None:
    sample, count = FrameSample(), 3 * MAX_FRAMES
    for start in range(0, count, 64):
        batch = torch.arange(start, min(start + 64, count)).float().view(-1, 1, 1, 1)
        sample(nn.Identity(), (batch,))
    kept = sample.frames().flatten().tolist()
    assert MAX_FRAMES / 2 < len(kept) <= MAX_FRAMES
    steps = {b - a for a, b in pairwise(kept)}
    assert steps == {4}
    assert kept[0] == 0
