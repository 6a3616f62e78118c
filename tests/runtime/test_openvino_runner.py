"""Real segments through OpenVINO, against numpy."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ModelError
from edgepkd.machine import hardware
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.runner import SegmentRunner
from tests.runtime.bundles import make_bundle, motion_gain


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
    assert runner._segments == {}
    runner.prepare(Position("iframe", 2))
    runner.prepare(Position("iframe", 2))
    assert list(runner._segments) == [Position("iframe", 2)]


def test_backend_says_what_it_is(bundle: Bundle) -> None:
    name, version, device = OpenVinoRunner(bundle).backend.split()
    assert (name, device) == ("openvino", "CPU")
    assert version[0].isdigit()


def test_wrong_input_is_a_clear_error(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="mv_1 failed in OpenVINO"):
        OpenVinoRunner(bundle).run(Position("mv", 1), np.zeros((2, 3, 32, 32), np.float32))


def test_what_openvino_refuses_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # the bundle lets nothing through that is no network: OpenVINO may have other reasons
    monkeypatch.setattr(Bundle, "segment_content", lambda *_: b"not a network")
    with pytest.raises(ModelError, match=r"mv_1\.onnx cannot be compiled"):
        OpenVinoRunner(bundle).prepare(Position("mv", 1))


def test_a_network_without_features(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(graph: bytes) -> bytes:
        model = onnx.load_from_string(graph)
        del model.graph.output[0]
        return model.SerializeToString()

    content = without(bundle.segment_content("mv", 1))
    monkeypatch.setattr(Bundle, "segment_content", lambda *_: content)
    with pytest.raises(ModelError, match=r"mv_1\.onnx has the outputs logits; allowed: features"):
        OpenVinoRunner(bundle).prepare(Position("mv", 1))


def test_a_segment_changed_after_the_check_is_never_compiled(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    path = bundle.path / "segments" / "mv_1.onnx"
    path.write_bytes(path.read_bytes().replace(b"GlobalAveragePool", b"GlobalMaximumPool"))
    with pytest.raises(BundleError, match=r"segments/mv_1\.onnx has SHA-256"):
        OpenVinoRunner(bundle).prepare(Position("mv", 1))


def test_a_closed_runner_holds_nothing_and_refuses(bundle: Bundle) -> None:
    runner, other = OpenVinoRunner(bundle), OpenVinoRunner(bundle)
    x = np.ones((2, 2, 32, 32), np.float32)
    features, _ = runner.run(Position("mv", 1), x)
    assert runner._segments is not None
    request = weakref.ref(runner._segments[Position("mv", 1)]._request)
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
