"""Values of a bundle: finite, in range, of a size; what is wrong is refused by name and value."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.manifest import parse_manifest, parse_policy, parse_wise
from edgepkd.bundle.reading import read_bundle
from edgepkd.errors import BundleError
from edgepkd.runtime.model import DEMO_BUNDLE
from tests.bundle import json_fuzz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def demo(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((DEMO_BUNDLE / name).read_text())
    return values


def segment(manifest: dict[str, Any], **changes: object) -> None:
    manifest["segments"][0].update(changes)


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m.update(name="n" * 201), "name is 'nnn"),
    (lambda m: m.update(name=["a"]), r"name is \['a'\]; allowed: str"),
    (lambda m: m["labels"].append("l" * 201), r"labels\[2\] is 'lll"),
    (lambda m: m.update(labels=[str(i) for i in range(100_001)]), r"labels is \('0', '1'"),
    (lambda m: m.update(labels={"a": 1, "b": 2}), "labels is .*allowed: list"),
    (lambda m: m["inputs"]["mv"].update(num_segments=1001), r"inputs\.mv: num_segments is 1001"),
    (lambda m: m["inputs"]["mv"].update(num_segments=True), r"inputs\.mv\.num_segments is True"),
    (lambda m: m["inputs"]["mv"].update(num_segments=8.0), r"inputs\.mv\.num_segments is 8\.0"),
    (lambda m: m["inputs"]["mv"].update(resize_px=10**9), r"inputs\.mv: resize_px is 1000000000"),
    (lambda m: m["inputs"]["mv"].update(resize_px=4000, crop_px=4000, num_segments=100),
     r"inputs\.mv: num_segments x channels x crop_px x crop_px is 3200000000"),
    (lambda m: m["inputs"]["mv"].update(crop_px=-1), r"inputs\.mv: crop_px is -1"),
    (lambda m: m["clip"].update(clip_frames=10**9), r"clip\.clip_frames is 1000000000"),
    (lambda m: m["clip"].update(stride_frames=10**9), r"clip\.stride_frames is 1000000000"),
    (lambda m: m["clip"].update(stride_frames=0), "clip: stride_frames is 0"),
    (lambda m: m["clip"].update(gop_frames=10**9), "clip: gop_frames is 1000000000"),
    (lambda m: m["decode"].update(gop_frames=10**9), "decode: gop_frames is 1000000000"),
    (lambda m: m["decode"].update(max_short_side_px=10**9), "decode: max_short_side_px is 10{9};"),
    (lambda m: m["decode"].update(max_short_side_px=0), "decode: max_short_side_px is 0"),
    (lambda m: segment(m, gmac=-1), "segment mv_1: gmac is -1"),
    (lambda m: segment(m, gmac=1e7), "segment mv_1: gmac is 10000000"),
    (lambda m: segment(m, gmac=float("nan")), r"segments\[0\]\.gmac is nan"),
    (lambda m: segment(m, features_shape=[32, 24]), r"segment mv_1: features_shape is \(32, 24\)"),
    (lambda m: segment(m, features_shape=[]), r"segment mv_1: features_shape is \(\)"),
    (lambda m: segment(m, features_shape=[32, 0, 24]), r"segment mv_1: features_shape is \(32, 0"),
    (lambda m: segment(m, features_shape=[2**20, 2**20, 1]), "segment mv_1: features_shape is"),
    (lambda m: segment(m, exit=2**40), "segments is"),
    (lambda m: segment(m, file=f"segments/{'n' * 300}"), "missing from files is 'segments/nnn"),
    (lambda m: m["files"].update({"n" * 300: {"sha256": "0" * 64, "bytes": 1}}), "path 'nnn"),
    (lambda m: m["files"].update({f"f{i}": {"sha256": "0" * 64, "bytes": 1}
                                  for i in range(1001)}), "files: number is 1016"),
    (lambda m: [m["files"][s["file"]].update(bytes=2**29) for s in m["segments"]],
     "files: bytes of all is"),
    (lambda m: m["files"]["wise.json"].update(bytes=-1), r"files\.wise\.json\.bytes is -1"),
    (lambda m: m["files"]["wise.json"].update(sha256="0" * 63), r"files\.wise\.json\.sha256 is"),
    (lambda m: m["files"]["wise.json"].update(sha256="A" * 64), r"files\.wise\.json\.sha256 is"),
    (lambda m: m["provenance"].update(parity=float("inf")), r"provenance\.parity is inf"),
    (lambda m: m.update(provenance=["x"]), r"provenance is \['x'\]"),
])
def test_values_of_a_manifest_are_refused_by_name(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    manifest = demo("manifest.json")
    change(manifest)
    with pytest.raises(BundleError, match=rf"manifest\.json: {message}") as caught:
        parse_manifest(json.dumps(manifest).encode())
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("value", [1e30, 10**30, -1e7, 1e300, float("nan"), float("-inf")])
def test_weights_are_bounded(value: float) -> None:
    wise = demo("wise.json")
    wise["orders"]["mv"]["weights"][3][1] = value
    with pytest.raises(BundleError, match=r"wise\.json: .*mv.*weights\[3\]\[1\] is -?[1ni]"):
        parse_wise(json.dumps(wise).encode())


@pytest.mark.parametrize(("key", "value"), [
    ("temperatures", 0), ("temperatures", -1), ("temperatures", 1e-300), ("temperatures", 1e300),
    ("temperatures", float("inf")), ("temperatures", True), ("thresholds", 1.1),
    ("thresholds", -0.1), ("thresholds", float("nan")), ("thresholds", "0.5")])
def test_policies_are_bounded(key: str, value: object) -> None:
    policy = demo("policy.json")
    policy["orders"]["mv"][key][2] = value
    with pytest.raises(BundleError, match=rf"policy\.json: .*mv.*{key}\[2\] is"):
        parse_policy(json.dumps(policy).encode())


@pytest.mark.parametrize(("case", "name", "message"), [
    ("3785_wise.json", "wise.json",
     r"wise\.json: orders\.mv,residual,iframe\.weights\[8\]\[1\] is 10{30};"),
    ("67_manifest.json", "manifest.json", r"manifest\.json: provenance\.parity is inf"),
])
def test_what_got_through_once_is_refused_by_name_and_value(
    shared_cases: Path, tmp_path: Path, case: str, name: str, message: str
) -> None:
    bundle = Path(shutil.copytree(DEMO_BUNDLE, tmp_path / "demo.edgepkd"))
    shutil.copyfile(shared_cases / "hostile" / case, bundle / name)
    if name != "manifest.json":
        content, manifest = (bundle / name).read_bytes(), demo("manifest.json")
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(),
                                   "bytes": len(content)}
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)
    done = subprocess.run([sys.executable, "-m", "edgepkd.cli.main", "inspect", str(bundle),
                           "--json", "-"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"error: {message}", done.stderr)
    assert "Traceback" not in done.stderr


def test_500_changed_documents_are_read_or_refused() -> None:
    outcomes = [json_fuzz.outcome(seed) for seed in range(500)]
    assert outcomes.count("refused") > 300
    assert outcomes.count("read") > 20
