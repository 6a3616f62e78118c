"""Real segments through OpenVINO, against numpy."""

from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd import hardware
from edgepkd.bundle import Bundle, read_bundle
from edgepkd.cascade import Position
from edgepkd.errors import ModelError
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.runner import SegmentRunner
from tests.runtime.bundles import make_bundle, motion_gain, segment_onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.smoke
def test_chain_agrees_with_numpy(bundle: Bundle) -> None:
    runner: SegmentRunner = OpenVinoRunner(bundle, threads=1)
    x = np.random.default_rng(0).normal(size=(2, 2, 32, 32)).astype(np.float32)
    expected = x.mean(axis=(2, 3)) @ motion_gain(40.0)
    for clip in (x, -x, x):  # handles of the clip before must not leak into the next
        features: object = clip
        for k in range(1, 5):
            features, logits = runner.run(Position("mv", k), features)
            assert logits.dtype == np.float32
            sign = -1 if clip is not x else 1
            assert logits == pytest.approx(sign * expected, abs=1e-5)
    assert features is None, "the last segment has nothing to hand on"


def test_logits_are_copies(bundle: Bundle) -> None:
    runner = OpenVinoRunner(bundle, threads=1)
    x = np.ones((2, 2, 32, 32), np.float32)
    _, first = runner.run(Position("mv", 1), x)
    kept = first.copy()
    runner.run(Position("mv", 1), 5 * x)
    assert (first == kept).all()


def test_segments_are_compiled_when_first_needed(bundle: Bundle) -> None:
    runner = OpenVinoRunner(bundle)
    assert runner._requests == {}
    runner.prepare(Position("iframe", 2))
    runner.prepare(Position("iframe", 2))
    assert list(runner._requests) == [Position("iframe", 2)]


def test_compiled_segments_can_be_cached(bundle: Bundle, tmp_path: Path) -> None:
    OpenVinoRunner(bundle, cache_dir=tmp_path).prepare(Position("mv", 1))
    assert list(tmp_path.iterdir())


def test_backend_says_what_it_is(bundle: Bundle) -> None:
    name, version, device = OpenVinoRunner(bundle).backend.split()
    assert (name, device) == ("openvino", "CPU")
    assert version[0].isdigit()


def test_wrong_input_is_a_clear_error(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="mv_1 failed in OpenVINO"):
        OpenVinoRunner(bundle).run(Position("mv", 1), np.zeros((2, 3, 32, 32), np.float32))


def replace_segment(folder: Path, content: bytes) -> Bundle:
    """A bundle whose hashes are right and whose first segment is `content`."""
    bundle = make_bundle(folder)
    (bundle.path / "segments" / "mv_1.onnx").write_bytes(content)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["files"]["segments/mv_1.onnx"] = {
        "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    return read_bundle(bundle.path)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    bundle = replace_segment(tmp_path, b"not a network")
    with pytest.raises(ModelError, match=r"mv_1\.onnx cannot be compiled"):
        OpenVinoRunner(bundle).prepare(Position("mv", 1))


def test_a_network_without_features(tmp_path: Path) -> None:
    last = segment_onnx("mv", 4, motion_gain(1.0), np.zeros(2))
    bundle = replace_segment(tmp_path, last)
    with pytest.raises(ModelError, match=r"mv_1\.onnx"):
        OpenVinoRunner(bundle).prepare(Position("mv", 1))


def test_a_closed_runner_holds_nothing_and_refuses(bundle: Bundle) -> None:
    runner, other = OpenVinoRunner(bundle), OpenVinoRunner(bundle)
    x = np.ones((2, 2, 32, 32), np.float32)
    features, _ = runner.run(Position("mv", 1), x)
    assert runner._requests is not None
    request = weakref.ref(runner._requests[Position("mv", 1)])
    runner.close()
    runner.close()
    assert request() is None
    for use in (lambda: runner.prepare(Position("mv", 1)),
                lambda: runner.run(Position("mv", 2), features)):
        with pytest.raises(ModelError, match="is closed"):
            use()
    other.run(Position("mv", 1), x)


@pytest.mark.parametrize("weight_bits", [7, 8])
def test_full_range_weights_are_refused_where_the_cpu_would_overflow(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, weight_bits: int
) -> None:
    segments = tuple(replace(s, precision="int8", weight_bits=weight_bits)
                     for s in bundle.manifest.segments)
    quantised = replace(bundle, manifest=replace(bundle.manifest, segments=segments))
    monkeypatch.setattr(hardware, "overflows_bytes", lambda: True)
    runner = OpenVinoRunner(quantised)
    if weight_bits == 7:
        runner.prepare(Position("mv", 1))
        return
    with pytest.raises(ModelError, match=r"segment mv_1: .* no VNNI") as caught:
        runner.prepare(Position("mv", 1))
    assert "weight_bits = 7" in str(caught.value.hint)
    monkeypatch.setattr(hardware, "overflows_bytes", lambda: False)
    runner.prepare(Position("mv", 1))
