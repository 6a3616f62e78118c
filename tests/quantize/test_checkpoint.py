"""Quantised networks on disk: the very logits come back, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgepkd.errors import ModelError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.checkpoint import holds_quantized, load_quantized, save_quantized
from edgepkd.quantize.network import quantizers
from edgepkd.quantize.spec import QuantSpec
from tests.models.networks import small_network
from tests.quantize.quantized import small_int8, some_frames

SPEC = QuantSpec(calibrator="percentile", keep_float=("*.head.fc",))


@pytest.fixture(scope="module")
def network() -> SegmentedNetwork:
    return small_int8(SPEC)


@pytest.fixture
def path(network: SegmentedNetwork, tmp_path: Path) -> Path:
    save_quantized(network, tmp_path / "mv", spec=SPEC, extra={"seed": 3})
    return tmp_path / "mv"


def test_what_was_saved_comes_back_bit_by_bit(network: SegmentedNetwork, path: Path) -> None:
    loaded, spec, extra = load_quantized(path)
    assert (spec, extra) == (SPEC, {"seed": 3})
    assert not loaded.training
    x = some_frames(seed=5)
    with torch.no_grad():
        for one, other in zip(network(x), loaded(x), strict=True):
            assert torch.equal(one, other)
    assert [name for name, _ in quantizers(loaded)] == [name for name, _ in quantizers(network)]
    assert holds_quantized(path)


def test_what_holds_for_this_network_alone_is_written(tmp_path: Path) -> None:
    found = small_int8(QuantSpec(keep_float=("segments.1.*", "*.head.fc")))
    spec = QuantSpec(keep_float=("auto", "residual:conv1", "mv:*.head.fc"))
    save_quantized(found, tmp_path / "mv", spec=spec)
    loaded, own, _ = load_quantized(tmp_path / "mv")
    assert own.keep_float[0] == "*.head.fc"
    assert "segments.1.trunk.layer2.0.add" in own.keep_float
    assert not any("auto" in name or ":" in name for name in own.keep_float)
    assert [name for name, _ in quantizers(loaded)] == [name for name, _ in quantizers(found)]


def test_float_and_quantised_files_are_not_mixed_up(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mv\.json holds a quantised network, and a float one"):
        load_network(path)
    save_network(small_network(), tmp_path / "float")
    assert not holds_quantized(tmp_path / "float")
    with pytest.raises(ModelError, match="holds no valid quantised network"):
        load_quantized(tmp_path / "float")


def without(path: Path, name: str) -> None:
    """Take a tensor out of the file, and correct the hash."""
    weights = path.with_suffix(".safetensors")
    state = load_file(weights)
    del state[name]
    save_file(state, weights)
    document = json.loads(path.with_suffix(".json").read_text())
    document["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(document))


def test_a_missing_range_is_refused(path: Path) -> None:
    name = "segments.0.trunk.conv1.input_quantizer"
    without(path, f"{name}._amax")
    with pytest.raises(ModelError, match=f"has no range for {name}"):
        load_quantized(path)


def test_a_missing_weight_is_refused(path: Path) -> None:
    without(path, "segments.0.trunk.conv1.weight")
    with pytest.raises(ModelError, match=r"missing: segments\.0\.trunk\.conv1\.weight"):
        load_quantized(path)


def test_damaged_weights_are_refused(path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_quantized(path)


@pytest.mark.parametrize(("key", "value"), [
    ("quantized", {"calibrator": "minmax"}), ("quantized", {"bits": 4}), ("quantized", 7),
    ("spec", {"backbone": "vgg"}), ("quantized", {"keep_float": ["nothing.like.it"]}),
])
def test_a_damaged_description_is_refused(path: Path, key: str, value: Any) -> None:
    document = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**document, key: value}))
    with pytest.raises(ModelError, match="holds no valid quantised network"):
        load_quantized(path)
