"""What is quantised, and how its ranges are found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from edgepkd.config import LATER, MODALITIES, Modality, check

Calibrator = Literal["max", "percentile", "entropy", "mse"]
ResidualInputs = Literal["both", "shortcut"]
AUTO = "auto"
"""In `keep_float`: what the sensitivity of the layers says."""
_PREFIXES = tuple(f"{modality}:" for modality in MODALITIES)


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """Symmetric INT8: a scale a channel for weights, a scale a tensor for activations."""

    calibrator: Calibrator = "max"
    """Of activations: the largest value; a percentile of the histogram; the range whose histogram
    keeps most information (entropy); the range with the least squared error. Of weights: the
    largest value of each channel."""
    percentile: float = 99.99
    """Of calibrator percentile."""
    weight_bits: Literal[7, 8] = 7
    """7: weights use half of the 8-bit range. CPUs without a dot product for bytes (VNNI) add two
    products in 16 bits, which full-range weights overflow silently."""
    residual_add: ResidualInputs = "both"
    """Inputs of a residual add that are quantised."""
    bias_correction: bool = field(default=False, metadata=LATER)
    """Biases take back what rounding shifts on average (`quantize.correction`)."""
    keep_float: tuple[str, ...] = ()
    """Names of layers, or patterns of names ('segments.0.trunk.conv1', '*.head.*'), that stay
    float: of all networks, or with 'mv:', 'residual:' or 'iframe:' in front, of that one alone.
    'auto': layers that `quantize.sensitivity` finds to be worth it."""

    def __post_init__(self) -> None:
        check(self.calibrator in get_args(Calibrator), "calibrator", got=self.calibrator,
              allowed=", ".join(get_args(Calibrator)))
        check(90 <= self.percentile <= 100, "percentile", got=self.percentile, allowed="90..100")
        check(self.weight_bits in (7, 8), "weight_bits", got=self.weight_bits, allowed="7, 8")
        check(self.residual_add in get_args(ResidualInputs), "residual_add", got=self.residual_add,
              allowed=", ".join(get_args(ResidualInputs)))

    @property
    def is_auto(self) -> bool:
        """Whether layers that stay float are found by measuring."""
        return AUTO in self.keep_float

    def of(self, modality: Modality, *, found: tuple[str, ...] = ()) -> QuantSpec:
        """The same for one network alone: its own names without prefix, and `found` for 'auto'."""
        mine = [name.removeprefix(f"{modality}:") for name in self.keep_float
                if name != AUTO and (name.startswith(f"{modality}:")
                                     or not name.startswith(_PREFIXES))]
        return replace(self, keep_float=tuple(dict.fromkeys((*mine, *found))))
