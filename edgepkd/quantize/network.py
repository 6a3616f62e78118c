"""Places quantisers in a network and finds their ranges, through NVIDIA ModelOpt.

Convolutions and linear layers get a quantiser for their input and one for their weights, residual
adds one for each input (TensorRT fuses INT8 across an add only then). All else, such as the
products with M of pool-first heads, stays float (`float_layers`). The same tensor in front of
several layers gets the same range, so that it is quantised once.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edgepkd._optional import require
from edgepkd.config import check
from edgepkd.errors import ModelError
from edgepkd.models.fold import ChannelAffine, fold_batch_norm
from edgepkd.models.heads import PoolFirstHead
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.models.stages import ResidualAdd
from edgepkd.quantize.correction import FrameSample, correct_biases, layer_means
from edgepkd.quantize.spec import QuantSpec

WEIGHTED = ("nn.Conv2d", "nn.Linear")
WEIGHTS_QUANTIZER, INPUT_QUANTIZER = "weight_quantizer", "input_quantizer"
OUT_QUANTIZER, SHORTCUT_QUANTIZER = "out_input_quantizer", "shortcut_input_quantizer"
ENTROPY_STRIDE, MSE_STRIDE = 16, 8
"""Every so many bins of the histogram of 2048 a range is tried."""
QUANTIZED = (nn.Conv2d, nn.Linear, ResidualAdd)
"""Kinds of layers that have quantisers."""
MAX_STEPS = {7: 63, 8: 127}
"""Largest quantised value of symmetric weights."""


def quantize_network(
    network: SegmentedNetwork, *, spec: QuantSpec, calibrate: Callable[[nn.Module], None]
) -> SegmentedNetwork:
    """An INT8 copy of `network`, computed in float with every quantised tensor on its grid.

    BatchNorm is folded and heads are pool-first. `calibrate` runs its argument over the
    calibration frames. 'auto' in `keep_float` counts for nothing here (see `edgepkd.int8`).

    Raises:
        MissingExtraError: ModelOpt is not installed.
        ModelError: the frames leave a range empty or not finite; names the layer.
        ConfigError: `keep_float` names no layer.
    """
    quantized = insert_quantizers(network, spec=spec)
    stats, sample = _model_calib(), FrameSample()
    with torch.no_grad():
        stats.enable_stats_collection(quantized)
        handle = quantized.register_forward_pre_hook(sample)
        with _refusing_what_has_no_range(quantized):
            calibrate(quantized)
        handle.remove()
        if spec.calibrator != "max":
            _finish_by_histogram(quantized, spec)
        _finish_by_maximum(quantized)
    _check_ranges(quantized)
    if spec.bias_correction:
        frames = sample.frames()
        correct_biases(quantized, frames, means=layer_means(folded(network), frames))
    return quantized


def insert_quantizers(network: SegmentedNetwork, *, spec: QuantSpec) -> SegmentedNetwork:
    """A folded pool-first copy of `network` with quantisers that have no range yet."""
    inserted, spec = folded(network), spec.of(network.spec.modality)
    _check_patterns(inserted, spec)
    mtq = _modelopt()
    with _quiet():
        mtq.quantize(inserted, {"quant_cfg": _placement(spec), "algorithm": None})
    return inserted.eval()


def folded(network: SegmentedNetwork) -> SegmentedNetwork:
    """What quantisers are put into: a copy with BatchNorm folded and pool-first heads."""
    return fold_batch_norm(network.pool_first()).requires_grad_(False)


def for_export(network: SegmentedNetwork) -> SegmentedNetwork:
    """A copy whose quantisers are 8-bit ones with the very same grid, as ONNX needs them."""
    exported = copy.deepcopy(network)
    for _, quantizer in quantizers(exported):
        if quantizer.num_bits == 7:
            quantizer.amax = quantizer.amax * (MAX_STEPS[8] / MAX_STEPS[7])
            quantizer.num_bits = 8
    return exported


def is_quantized(network: nn.Module) -> bool:
    """Whether any quantiser in `network` is at work."""
    return any(True for _ in quantizers(network))


def weight_bits(network: nn.Module) -> Literal[7, 8] | None:
    """Bits of quantised weights; None: the network is float."""
    bits = {quantizer.num_bits for name, quantizer in quantizers(network)
            if name.endswith(WEIGHTS_QUANTIZER)}
    assert len(bits) <= 1
    return cast(Literal[7, 8], bits.pop()) if bits else None


def quantizers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and quantisers that are at work."""
    for name, module in network.named_modules():
        if name.endswith("_quantizer") and getattr(module, "is_enabled", False):
            yield name, module


def without_quantizers(network: nn.Module) -> tuple[str, ...]:
    """Names of convolutions, linear layers and residual adds that have none at work."""
    working = {name.rpartition(".")[0] for name, _ in quantizers(network)}
    return tuple(name for name, module in network.named_modules()
                 if isinstance(module, QUANTIZED) and name not in working)


def float_layers(network: SegmentedNetwork) -> tuple[str, ...]:
    """Names of what stays float, each with what it is: 'segments.0.head: pooling (M x M^T)'."""
    working = {name for name, _ in quantizers(network)}
    kinds = {ChannelAffine: "input scale and shift", nn.MaxPool2d: "max pooling"}
    found = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if f"{name}.{INPUT_QUANTIZER}" not in working:
                kind = "convolution" if isinstance(module, nn.Conv2d) else "linear"
                found.append(f"{name}: {kind}")
        elif isinstance(module, PoolFirstHead):
            found.append(f"{name}: pooling (M x M^T)")
        elif isinstance(module, ResidualAdd) and f"{name}.{OUT_QUANTIZER}" not in working:
            found.append(f"{name}: residual add, input from the convolution")
        else:
            found += [f"{name}: {what}" for cls, what in kinds.items() if isinstance(module, cls)]
    last = len(network.segments) - 1
    return (*found, f"segments.{last}.head: global average pooling")


# ---- ModelOpt


@functools.cache
def _modelopt() -> ModuleType:
    """ModelOpt's quantisation, knowing of residual adds."""
    with _quiet():
        require("modelopt", purpose="Quantising")
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization.nn import TensorQuantizer

    class QuantizedAdd(ResidualAdd):
        def _setup(self) -> None:
            self.out_input_quantizer = TensorQuantizer()
            self.shortcut_input_quantizer = TensorQuantizer()

        def forward(self, out: Tensor, shortcut: Tensor) -> Tensor:
            return super().forward(self.out_input_quantizer(out),
                                   self.shortcut_input_quantizer(shortcut))

    mtq.register(original_cls=ResidualAdd, quantized_cls=QuantizedAdd)
    return cast(ModuleType, mtq)


def _model_calib() -> ModuleType:
    from modelopt.torch.quantization import model_calib

    return cast(ModuleType, model_calib)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ModelOpt prints to stdout, which belongs to data, and warns of what a CPU lacks."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _placement(spec: QuantSpec) -> list[dict[str, Any]]:
    """ModelOpt's rules; later ones override earlier ones."""
    histogram = {"calibrator": "histogram"} if spec.calibrator != "max" else {}
    activations = {"num_bits": 8, "axis": None, **histogram}
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for kind in WEIGHTED:
        rules.append({"quantizer_name": f"*{WEIGHTS_QUANTIZER}", "parent_class": kind,
                      "cfg": {"num_bits": spec.weight_bits, "axis": 0}})
        rules.append({"quantizer_name": f"*.{INPUT_QUANTIZER}", "parent_class": kind,
                      "cfg": activations})
    inputs = [SHORTCUT_QUANTIZER, *([OUT_QUANTIZER] if spec.residual_add == "both" else [])]
    rules += [{"quantizer_name": f"*.{name}", "cfg": activations} for name in inputs]
    rules += [{"quantizer_name": f"{pattern}.*_quantizer", "enable": False}
              for pattern in spec.keep_float]
    return rules


def _check_patterns(network: nn.Module, spec: QuantSpec) -> None:
    names = [name for name, module in network.named_modules()
             if isinstance(module, QUANTIZED)]
    for pattern in spec.keep_float:
        check(any(fnmatch.fnmatch(name, pattern) for name in names), "keep_float", got=pattern,
              allowed=f"names or patterns of layers, such as {names[0]}")


@contextlib.contextmanager
def _refusing_what_has_no_range(network: nn.Module) -> Iterator[None]:
    """Name the first layer that sees NaN or infinity, or that sees nothing; ModelOpt does not."""
    unseen = dict.fromkeys(name for name, _ in quantizers(network))

    def look(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        unseen.pop(name, None)
        if not bool(torch.isfinite(inputs[0]).all()):
            raise _no_range(name, "not finite")

    handles = [quantizer.register_forward_pre_hook(functools.partial(look, name))
               for name, quantizer in quantizers(network)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if unseen:
        raise _no_range(next(iter(unseen)), "empty: no frame has passed")


def _no_range(name: str, what: object) -> ModelError:
    return ModelError(f"the range of {name} is {what}; it must be finite.",
                      hint="The network or a calibration clip is broken; see its loss.")


def _finish_by_histogram(network: nn.Module, spec: QuantSpec) -> None:
    """Ranges of the activations, whose calibrators are histograms."""
    for name, quantizer in quantizers(network):
        if name.endswith(WEIGHTS_QUANTIZER):
            continue
        if spec.calibrator == "percentile":
            quantizer.load_calib_amax("percentile", percentile=spec.percentile)
        elif spec.calibrator == "entropy":
            quantizer.load_calib_amax("entropy", stride=ENTROPY_STRIDE)
        else:
            quantizer.amax = _least_squares_range(quantizer._calibrator)
        quantizer.enable_quant()
        quantizer.disable_calib()


def _least_squares_range(calibrator: Any) -> Tensor:
    """Range with the least squared error over a histogram of absolute values.

    ModelOpt's own (0.47) hands its fake quantiser the number of bits in place of a bias.
    """
    counts, edges = calibrator._calib_hist.double(), calibrator._calib_bin_edges.double()
    centres = (edges[1:] + edges[:-1]) / 2  # [bins]
    ranges = edges[MSE_STRIDE::MSE_STRIDE, None]  # [candidates, 1]
    steps = ranges / MAX_STEPS[8]
    on_grid = (centres / steps).round().clamp(max=MAX_STEPS[8]) * steps  # [candidates, bins]
    errors = ((on_grid - centres) ** 2 * counts).sum(dim=1)
    return cast(Tensor, ranges[errors.argmin(), 0]).float()


def _finish_by_maximum(network: nn.Module) -> None:
    """Ranges of what is still being watched: weights, and with calibrator max all else."""
    for _, quantizer in quantizers(network):
        if quantizer._if_calib:
            quantizer.load_calib_amax()
            quantizer.enable_quant()
            quantizer.disable_calib()


def _check_ranges(network: nn.Module) -> None:
    for name, quantizer in quantizers(network):
        if quantizer.amax is None or not bool(torch.isfinite(quantizer.amax).all()):
            raise _no_range(name, quantizer.amax)
