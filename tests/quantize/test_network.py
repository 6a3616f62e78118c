"""Where quantisers stand, which grid they have, how ranges are found; with the real ModelOpt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgepkd.errors import ConfigError, ModelError
from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.segmented import BackboneName, SegmentedNetwork
from edgepkd.models.stages import ResidualAdd
from edgepkd.quantize.network import (
    _least_squares_range,
    float_layers,
    for_export,
    insert_quantizers,
    is_quantized,
    quantize_network,
    quantizers,
)
from edgepkd.quantize.spec import Calibrator, QuantSpec
from tests.models.networks import small_network
from tests.quantize.quantized import small_int8, some_frames


@pytest.fixture(scope="module")
def plain() -> SegmentedNetwork:
    return small_network()


@pytest.fixture(scope="module")
def quantized(plain: SegmentedNetwork) -> SegmentedNetwork:
    return small_int8(network=plain)


def by_name(network: nn.Module) -> dict[str, Any]:
    return dict(quantizers(network))


def logits(network: SegmentedNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack(network(x))


# ---- placement


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_every_weighted_layer_and_add_has_its_quantisers_and_nothing_else(
    name: BackboneName
) -> None:
    network = insert_quantizers(small_network(name), spec=QuantSpec())
    expected: set[str] = set()
    for layer, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            expected |= {f"{layer}.input_quantizer", f"{layer}.weight_quantizer"}
        elif isinstance(module, ResidualAdd):
            expected |= {f"{layer}.out_input_quantizer", f"{layer}.shortcut_input_quantizer"}
    assert set(by_name(network)) == expected
    assert len(expected) > 40
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, ResidualAdd) for module in network.modules())


def test_weights_are_quantised_a_channel_and_activations_a_tensor_both_symmetric(
    quantized: SegmentedNetwork
) -> None:
    modules = dict(quantized.named_modules())
    for name, quantizer in by_name(quantized).items():
        layer, _, kind = name.rpartition(".")
        assert not quantizer.unsigned
        if kind == "weight_quantizer":
            weight = modules[layer].weight
            assert (quantizer.num_bits, quantizer.axis) == (7, 0)
            torch.testing.assert_close(quantizer.amax.flatten(),
                                       weight.abs().flatten(1).amax(dim=1))
        else:
            assert (quantizer.num_bits, quantizer.amax.numel()) == (8, 1)


@pytest.mark.parametrize(("bits", "steps"), [
    pytest.param(7, 63, marks=pytest.mark.smoke), (8, 127)])
def test_quantised_weights_lie_on_the_grid_of_their_channel(bits: int, steps: int) -> None:
    network = small_int8(QuantSpec(weight_bits=bits))  # type: ignore[arg-type]
    layer = network.segments[1].trunk.layer2[0].conv1  # type: ignore[union-attr,index]
    on_grid = layer.weight_quantizer(layer.weight)
    whole = on_grid / layer.weight_quantizer.amax * steps
    torch.testing.assert_close(whole, whole.round(), atol=1e-4, rtol=0)
    assert whole.abs().max().round() == steps
    assert not torch.equal(on_grid, layer.weight)
    assert float((on_grid - layer.weight).abs().max()) <= float(
        layer.weight_quantizer.amax.max()) / steps / 2 * 1.001


def test_the_float_network_is_left_alone_and_close(
    plain: SegmentedNetwork, quantized: SegmentedNetwork
) -> None:
    assert not is_quantized(plain)
    assert is_quantized(quantized)
    assert plain.spec.head_form == "paper"
    assert quantized.spec.head_form == "pool_first"
    assert not any(parameter.requires_grad for parameter in quantized.parameters())
    x = some_frames()
    reference, got = logits(plain, x), logits(quantized, x)
    spread = reference.std(dim=(1, 2))
    error = (got - reference).square().mean(dim=(1, 2)).sqrt()
    assert (error > 0).all()
    assert (error < 0.2 * spread).all()


def test_without_quantisers_it_is_the_folded_network(
    plain: SegmentedNetwork, quantized: SegmentedNetwork
) -> None:
    resting = copy.deepcopy(quantized)
    for quantizer in by_name(resting).values():
        quantizer.disable()
    x = some_frames()
    torch.testing.assert_close(logits(resting, x), logits(fold_batch_norm(plain.pool_first()), x),
                               atol=1e-5, rtol=1e-5)


def test_a_residual_add_may_have_its_shortcut_alone() -> None:
    network = insert_quantizers(small_network(), spec=QuantSpec(residual_add="shortcut"))
    names = set(by_name(network))
    assert "segments.0.trunk.layer1.0.add.shortcut_input_quantizer" in names
    assert not any(name.endswith("out_input_quantizer") for name in names)
    assert ("segments.0.trunk.layer1.0.add: residual add, input from the convolution"
            in float_layers(network))


# ---- what stays float


def test_what_stays_float_is_listed(quantized: SegmentedNetwork) -> None:
    assert float_layers(quantized) == (
        "segments.0.trunk.data_bn: input scale and shift", "segments.0.trunk.maxpool: max pooling",
        *(f"segments.{k}.head: pooling (M x M^T)" for k in range(3)),
        "segments.3.head: global average pooling")


def test_layers_can_be_kept_float_by_name_and_by_pattern() -> None:
    spec = QuantSpec(keep_float=("segments.0.trunk.conv1", "*.head.fc", "*.layer4.1.add"))
    network = insert_quantizers(small_network(), spec=spec)
    layers = {name.rpartition(".")[0] for name in by_name(network)}
    gone = {"segments.0.trunk.conv1", "segments.3.trunk.layer4.1.add",
            *(f"segments.{k}.head.fc" for k in range(4))}
    all_layers = {name.rpartition(".")[0] for name in by_name(
        insert_quantizers(small_network(), spec=QuantSpec()))}
    assert layers == all_layers - gone
    listed = float_layers(network)
    assert "segments.0.trunk.conv1: convolution" in listed
    assert "segments.2.head.fc: linear" in listed


def test_a_pattern_without_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep_float is 'segments\.9\.\*'; allowed: names or "
                                          r"patterns of layers, such as segments\.0\.trunk\.conv1"):
        insert_quantizers(small_network(), spec=QuantSpec(keep_float=("segments.9.*",)))


# ---- export


@pytest.mark.slow
@pytest.mark.parametrize("bits", [7, 8])
def test_for_export_has_the_same_grid_in_eight_bits(bits: int) -> None:
    network = small_int8(QuantSpec(weight_bits=bits))  # type: ignore[arg-type]
    exported = for_export(network)
    assert {q.num_bits for q in by_name(exported).values()} == {8}
    assert {q.num_bits for q in by_name(network).values()} == {8, bits}
    for name, quantizer in by_name(network).items():
        if name.endswith("weight_quantizer"):
            steps = 63 if bits == 7 else 127
            torch.testing.assert_close(by_name(exported)[name].amax / 127, quantizer.amax / steps)
    x = some_frames(seed=3)
    torch.testing.assert_close(logits(exported, x), logits(network, x), atol=2e-3, rtol=1e-3)


# ---- ranges


def activation_ranges(calibrator: Calibrator, **more: Any) -> dict[str, float]:
    network = small_int8(QuantSpec(calibrator=calibrator, **more))
    return {name: float(quantizer.amax) for name, quantizer in by_name(network).items()
            if not name.endswith("weight_quantizer")}


@pytest.fixture(scope="module")
def largest() -> dict[str, float]:
    return activation_ranges("max")


def test_max_is_the_largest_input(largest: dict[str, float], plain: SegmentedNetwork) -> None:
    folded = fold_batch_norm(plain.pool_first())
    x = folded.segments[0].trunk.data_bn(some_frames())  # type: ignore[union-attr,operator]
    assert largest["segments.0.trunk.conv1.input_quantizer"] == pytest.approx(
        float(x.detach().abs().max()))


def test_percentiles_are_below_the_largest_and_rise(largest: dict[str, float]) -> None:
    low, high = (activation_ranges("percentile", percentile=p) for p in (95.0, 99.9))
    assert low.keys() == high.keys() == largest.keys()
    for name, top in largest.items():
        assert 0 < low[name] <= high[name] * 1.0001
        assert high[name] <= top * 1.01  # a bin of the histogram
    assert sum(low.values()) < 0.8 * sum(largest.values())


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", ["entropy", "mse"])
def test_other_ranges_cut_outliers_and_never_exceed_the_largest(
    calibrator: Calibrator, largest: dict[str, float]
) -> None:
    found = activation_ranges(calibrator, keep_float=("segments.[123].*",))  # entropy is slow
    assert len(found) > 10
    assert all(0 < range_ <= largest[name] * 1.01 for name, range_ in found.items())
    assert any(range_ < 0.99 * largest[name] for name, range_ in found.items())


class Histogram:
    """What ModelOpt's calibrator holds."""

    def __init__(self, values: Tensor) -> None:
        counts, edges = torch.histogram(values, bins=2048, range=(0, float(values.max())))
        self._calib_hist, self._calib_bin_edges = counts, edges


def test_mse_is_the_least_squares_range() -> None:
    """Against the error of the values themselves, for every range on a fine grid."""
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(1)).abs()
    values[0] = 8  # an outlier
    found = float(_least_squares_range(Histogram(values)))

    def error(range_: float) -> float:
        step = range_ / 127
        return float(((values / step).round().clamp(max=127) * step - values).square().mean())

    candidates = torch.linspace(3, 8, 200).tolist()
    best = min(candidates, key=error)
    assert error(found) <= error(best) * 1.02
    assert error(found) < 0.7 * error(8.0)
    assert found == pytest.approx(best, rel=0.05)


def test_a_range_that_is_not_finite_names_its_layer() -> None:
    network = small_network()
    network.segments[0].trunk.conv1.weight.data[0] = torch.nan  # type: ignore[union-attr,index,operator]
    with pytest.raises(ModelError, match=r"range of segments\.0\.trunk\.conv1\.weight_quantizer is "
                                         "not finite"):
        small_int8(network=network)


def test_without_frames_there_is_no_range() -> None:
    with pytest.raises(ModelError, match=r"range of segments\.0\.trunk\.conv1\.input_quantizer is "
                                         "empty: no frame has passed"):
        quantize_network(small_network(), spec=QuantSpec(), calibrate=lambda _: None)
