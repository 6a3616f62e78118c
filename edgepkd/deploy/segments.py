"""The ONNX of every segment of a cascade."""

from __future__ import annotations

from edgepkd.config import Inputs, Modality
from edgepkd.deploy.onnx import WeightFormat, export_network
from edgepkd.deploy.parity import Segments
from edgepkd.models.segmented import Networks
from edgepkd.quantize.network import for_export, is_quantized


def export_segments(
    networks: Networks, inputs: Inputs, *, weights: WeightFormat = "fp32", batch: int | None = None
) -> Segments:
    """ONNX of every segment; quantised networks become INT8 graphs.

    Raises:
        ModelError: as `deploy.onnx.export_segment`.
    """
    segments: dict[tuple[Modality, int], bytes] = {}
    for modality, network in networks.items():
        deployable = for_export(network) if is_quantized(network) else network
        segments.update(export_network(deployable, crop_px=inputs[modality].crop_px,
                                       weights=weights, batch=batch))
    return segments
