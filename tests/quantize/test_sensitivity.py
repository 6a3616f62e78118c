"""What each layer alone loses: against quantising it by hand, and on a layer that was spoilt."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.network import insert_quantizers, quantizers
from edgepkd.quantize.sensitivity import (
    LayerSensitivity,
    keep_float_option,
    measure_sensitivity,
    worth_float,
)
from edgepkd.quantize.spec import QuantSpec
from edgepkd.recipes import toml_value
from tests.models.networks import small_network
from tests.quantize.quantized import small_int8, some_frames

SPOILT = "segments.2.trunk.layer3.0.conv2"


@pytest.fixture(scope="module")
def network() -> SegmentedNetwork:
    """One layer has a range that is far too small."""
    made = small_int8()
    quantizer = dict(quantizers(made))[f"{SPOILT}.input_quantizer"]
    quantizer.amax = quantizer.amax / 50
    return made


@pytest.fixture(scope="module")
def measured(network: SegmentedNetwork) -> dict[str, LayerSensitivity]:
    frames = [some_frames(2, seed=1), some_frames(1, seed=2)]
    return {one.layer: one for one in measure_sensitivity(network, frames)}


def exits(network: SegmentedNetwork) -> Tensor:
    with torch.no_grad():
        return torch.stack(network(torch.cat([some_frames(2, seed=1), some_frames(1, seed=2)])))


@pytest.mark.slow
def test_every_quantised_layer_is_measured_once(
    network: SegmentedNetwork, measured: dict[str, LayerSensitivity]
) -> None:
    layers = {name.rpartition(".")[0] for name, _ in quantizers(network)}
    assert set(measured) == layers
    assert all(q.is_enabled for _, q in quantizers(network))


@pytest.mark.slow
def test_exits_before_a_layer_are_not_touched(measured: dict[str, LayerSensitivity]) -> None:
    for one in measured.values():
        before = int(one.layer.split(".")[1])  # segments.K. ...
        assert one.sqnr_db[:before] == (None,) * before
        assert one.worst_exit > before
        assert one.worst_sqnr_db == min(v for v in one.sqnr_db if v is not None)
    head = measured["segments.1.head.conv"]
    assert [value is None for value in head.sqnr_db] == [True, False, True, True]
    assert head.kl_last == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_a_linear_layer_is_what_quantising_it_by_hand_gives(
    measured: dict[str, LayerSensitivity]
) -> None:
    """The last layer: weights on a grid of 63 steps a row, inputs on one of 127."""
    folded = fold_batch_norm(small_network().pool_first())
    quantizer = dict(quantizers(small_int8()))["segments.3.head.fc.input_quantizer"]
    reference = exits(folded)[3]
    by_hand = copy.deepcopy(folded)
    linear = by_hand.segments[3].head.fc
    top = linear.weight.abs().amax(dim=1, keepdim=True)
    linear.weight.data = (linear.weight / top * 63).round() / 63 * top
    step = quantizer.amax / 127
    linear.register_forward_pre_hook(
        lambda _, inputs: ((inputs[0] / step).round().clamp(-127, 127) * step,))
    got = exits(by_hand)[3]
    signal = reference - reference.mean(dim=1, keepdim=True)
    noise = (got - got.mean(dim=1, keepdim=True)) - signal
    expected = 10 * torch.log10(signal.square().sum() / noise.square().sum())
    one = measured["segments.3.head.fc"]
    assert one.worst_sqnr_db == pytest.approx(float(expected), abs=0.1)
    p, q = reference.double().softmax(1), got.double().softmax(1)
    assert one.kl_last == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=0.02)


def test_with_corrected_biases_a_layer_is_measured_with_its_own_correction() -> None:
    """Other layers' corrections, made for all quantisers, would be noise here."""
    plain = small_network()
    frames = [some_frames(4, seed=3)]
    uncorrected = small_int8(network=plain)
    corrected = small_int8(QuantSpec(bias_correction=True), network=plain)
    found, again = (measure_sensitivity(one, frames, network=plain)
                    for one in (uncorrected, corrected))
    assert found == again
    alone = {one.layer: one for one in measure_sensitivity(uncorrected, frames)}
    gains = [one.worst_sqnr_db - alone[one.layer].worst_sqnr_db for one in found]
    assert sum(gains) / len(gains) > 0.5
    spoilt = {one.layer: one for one in measure_sensitivity(corrected, frames)}
    last = "segments.3.head.fc"
    assert spoilt[last].sqnr_db != alone[last].sqnr_db


def test_a_spoilt_layer_comes_first_and_is_worth_float(
    network: SegmentedNetwork, measured: dict[str, LayerSensitivity]
) -> None:
    assert next(iter(measured)) == SPOILT
    assert worth_float(measured.values()) == (SPOILT,)
    values = [one.worst_sqnr_db for one in measured.values()]
    assert values == sorted(values)
    assert values[0] < 10
    assert worth_float(measured.values(), min_sqnr_db=-100) == ()
    assert measured[SPOILT].kl_last == max(one.kl_last for one in measured.values())


def test_the_printed_option_keeps_these_layers_float(
    measured: dict[str, LayerSensitivity]
) -> None:
    found = worth_float(measured.values())
    option = keep_float_option({"mv": found, "residual": ["no.layer.of.mv"]})
    assert option == f"--set 'quantizer.keep_float=[\"mv:{SPOILT}\", \"residual:no.layer.of.mv\"]'"
    value = toml_value(option.split("=", 1)[1].rstrip("'"))
    spec = QuantSpec(keep_float=tuple(value))
    layers = {name.rpartition(".")[0] for name, _ in quantizers(
        insert_quantizers(small_network(), spec=spec))}
    assert SPOILT not in layers
