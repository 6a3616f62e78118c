"""Small networks quantised by ModelOpt, and their segments."""

from __future__ import annotations

import functools

import torch

from edgepkd.config import Modality
from edgepkd.deploy.onnx import export_network
from edgepkd.models.segmented import BackboneName, SegmentedNetwork
from edgepkd.quantize.network import for_export, quantize_network
from edgepkd.quantize.spec import QuantSpec
from tests.models.networks import small_network

CROP_PX = 64


def frames(modality: Modality = "mv", *, count: int = 4) -> torch.Tensor:
    """Random frames [count, C, 64, 64]."""
    generator = torch.Generator().manual_seed(1)
    channels = 2 if modality == "mv" else 3
    return torch.randn(count, channels, CROP_PX, CROP_PX, generator=generator)


@functools.cache
def int8_network(
    name: BackboneName = "resnet18", *, modality: Modality = "mv", spec: QuantSpec | None = None
) -> SegmentedNetwork:
    """A small network, quantised; do not change it."""
    return quantize_network(small_network(name, modality=modality), spec=spec or QuantSpec(),
                            calibrate=lambda network: network(frames(modality)))


@functools.cache
def int8_segments(
    name: BackboneName = "resnet18", *, modality: Modality = "mv"
) -> dict[tuple[Modality, int], bytes]:
    """ONNX of the four segments of `int8_network`."""
    return export_network(for_export(int8_network(name, modality=modality)), crop_px=CROP_PX)
