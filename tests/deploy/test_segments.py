"""Every segment of every network becomes one ONNX, float or INT8 as its network is."""

from __future__ import annotations

import onnx
import pytest

from edgepkd.config import InputSpec
from edgepkd.deploy.segments import export_segments
from edgepkd.engines.graph import is_quantized
from tests.engines.int8_networks import CROP_PX, int8_network
from tests.models.networks import small_network

INPUTS = {"mv": InputSpec("mv", 2, resize_px=CROP_PX, crop_px=CROP_PX),
          "iframe": InputSpec("iframe", 2, resize_px=CROP_PX, crop_px=CROP_PX)}


@pytest.mark.slow
def test_quantised_and_float_networks_go_into_one_set_of_segments() -> None:
    networks = {"mv": int8_network(), "iframe": small_network(modality="iframe")}
    segments = export_segments(networks, INPUTS)  # type: ignore[arg-type]
    assert list(segments) == [(m, k) for m in ("mv", "iframe") for k in (1, 2, 3, 4)]
    assert {key: is_quantized(content) for key, content in segments.items()} == {
        key: key[0] == "mv" for key in segments}


@pytest.mark.slow
def test_pictures_have_the_size_of_the_inputs_and_batches_may_be_fixed() -> None:
    segments = export_segments({"mv": small_network()}, INPUTS, batch=2)  # type: ignore[arg-type]
    graph = onnx.load_from_string(segments["mv", 1]).graph
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [
        2, 2, CROP_PX, CROP_PX]


@pytest.mark.slow
def test_float_weights_are_stored_as_asked() -> None:
    networks = {"mv": small_network()}
    full, half = (export_segments(networks, INPUTS, weights=weights)  # type: ignore[arg-type]
                  for weights in ("fp32", "fp16"))
    sizes = [sum(map(len, segments.values())) for segments in (full, half)]
    assert 0.5 < sizes[1] / sizes[0] < 0.7
