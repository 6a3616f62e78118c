"""A bundle is read as it was written, and whatever is wrong with it is refused by name."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.config import InputSpec
from edgepkd.errors import BundleError
from tests.bundle.changes import edit
from tests.runtime.bundles import LABELS, make_segments


@pytest.mark.smoke
def test_round_trip(pristine: Bundle) -> None:
    again = read_bundle(pristine.path)
    assert again == pristine
    assert again.manifest.labels == LABELS
    assert again.manifest.inputs["mv"] == InputSpec("mv", 2, resize_px=32, crop_px=32)
    assert again.manifest.segment("residual", 2).input_shape == (3, 16, 16)
    assert again.manifest.segment("iframe", 4).features_shape is None
    assert again.policy["mv"].thresholds == (0.9,) * 4
    assert again.wise["mv"][1] == (0.0, 1.0)
    assert again.segment_content("mv", 1) == make_segments()["mv", 1]


def test_a_segment_changed_after_the_check_is_refused(copy: Path) -> None:
    bundle, path = read_bundle(copy), copy / "segments" / "mv_3.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(BundleError, match=r"segments/mv_3\.onnx has SHA-256"):
        bundle.segment_content("mv", 3)
    path.unlink()
    (copy / "elsewhere").write_bytes(content)
    path.symlink_to(copy / "elsewhere")
    with pytest.raises(BundleError, match=r"segments/mv_3\.onnx is a link"):
        bundle.segment_content("mv", 3)


def test_tampered_file_is_named(copy: Path) -> None:
    path = copy / "segments" / "mv_3.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"segments/mv_3\.onnx has SHA-256"):
        read_bundle(copy)
    read_bundle(copy, verify=False)


def test_truncated_file_is_named_even_without_hashing(copy: Path) -> None:
    path = copy / "segments" / "iframe_2.onnx"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=r"iframe_2\.onnx has \d+ bytes; the manifest says"):
        read_bundle(copy, verify=False)


@pytest.mark.parametrize(
    "name", ["segments/mv_1.onnx", "wise.json", "policy.json", "MODEL_CARD.md"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["manifest.json", "wise.json", "policy.json"])
def test_newer_schema_says_upgrade(copy: Path, name: str) -> None:
    # a newer file may hold anything: the version must be looked at before all else
    edit(copy / name, lambda v: v.update(schema_version=4, something_new=1))
    with pytest.raises(BundleError, match=f"{name} has schema_version 4") as caught:
        read_bundle(copy)
    assert "--upgrade edgepkd" in str(caught.value.hint)


def test_reads_the_form_before_segments_said_their_precision(copy: Path) -> None:
    def older(values: dict[str, Any]) -> None:
        values["schema_version"] = 1
        for segment in values["segments"]:
            del segment["precision"], segment["weight_bits"]

    edit(copy / "manifest.json", older)
    assert {s.precision for s in read_bundle(copy).manifest.segments} == {"fp32"}


@pytest.mark.parametrize(("path", "reason"), [
    (Path("nowhere.edgepkd"), "no such folder"), (Path("."), "no manifest.json")])
def test_not_a_bundle(tmp_path: Path, path: Path, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        read_bundle(tmp_path / path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "\udcff", "[" * 100_000])
def test_a_manifest_that_is_no_json_object(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(copy)


@pytest.mark.parametrize(("change", "key"), [
    (lambda m: m.update(colour="red"), "colour"),
    (lambda m: m.pop("labels"), "labels"),
    (lambda m: m.pop("schema_version"), "schema_version"),
    (lambda m: m.update(schema_version=True), "schema_version"),
    (lambda m: m.update(schema_version=0), "schema_version"),
    (lambda m: m.update(labels=["a", "a"]), "labels"),
    (lambda m: m.update(labels="ab"), "labels"),
    (lambda m: m.update(labels=[1, 2]), "labels"),
    (lambda m: m.update(name=None), "name"),
    (lambda m: m["inputs"]["mv"].update(num_segments="3"), r"inputs\.mv\.num_segments"),
    (lambda m: m["inputs"]["mv"].update(num_segments=0), "num_segments"),
    (lambda m: m["inputs"]["mv"].update(speed=1), "speed"),
    (lambda m: m["inputs"]["mv"].update(modality="iframe"), r"inputs\.mv\.modality"),
    (lambda m: m["inputs"].update(audio={}), "inputs"),
    (lambda m: m["inputs"].pop("iframe"), "iframe"),
    (lambda m: m["clip"].update(sampling="random"), r"clip\.sampling"),
    (lambda m: m["clip"].update(gop_frames=1), "gop_frames"),
    (lambda m: m["decode"].update(grid_px=3), r"decode\.grid_px"),
    (lambda m: m["decode"].update(pixels=1), r"decode\.pixels"),
    (lambda m: m["cascade"].update(num_exits=3), r"num_exits"),
    (lambda m: m["cascade"].update(default_order=["iframe", "residual"]), "default_order"),
    (lambda m: m["cascade"].update(default_order=["audio"]), "default_order"),
    (lambda m: m["segments"].pop(), "segments"),
    (lambda m: m["segments"].append(m["segments"][0]), "segments"),
    (lambda m: m["segments"][0].update(input_shape=[2, 16, 16]), "mv_1: input_shape"),
    (lambda m: m["segments"][1].update(features_shape=None), "mv_2: features_shape"),
    (lambda m: m["segments"][3].update(features_shape=[2, 2, 2]), "mv_4: features_shape"),
    (lambda m: m["segments"][0].update(gmac="many"), "gmac"),
    (lambda m: m["segments"][0].update(modality="audio"), r"segments\[0\]\.modality"),
    (lambda m: m["files"].pop("segments/mv_1.onnx"), r"segments/mv_1\.onnx"),
    (lambda m: m["files"]["wise.json"].update(bytes="1"), r"files\.wise\.json\.bytes"),
    (lambda m: m.update(files=[]), "files"),
])
def test_wrong_manifest_names_the_key(
    copy: Path, change: Callable[[dict[str, Any]], object], key: str
) -> None:
    edit(copy / "manifest.json", change)
    with pytest.raises(BundleError, match=key):
        read_bundle(copy)


@pytest.mark.parametrize(("name", "change", "key"), [
    ("wise.json", lambda v: v["orders"]["mv"].update(weights=[[1]]), "mv: weights: lengths"),
    ("wise.json", lambda v: v["orders"]["mv"].update(bias=[0]), "mv: keys"),
    ("wise.json", lambda v: v["orders"]["mv"]["weights"].__setitem__(0, ["1"]), "mv: weights"),
    ("wise.json", lambda v: v["orders"]["mv"]["weights"].__setitem__(0, [float("nan")]), "finite"),
    ("wise.json", lambda v: v["orders"].update({"mv,mv": {}}), "mv,mv"),
    ("wise.json", lambda v: v["orders"].pop("mv,residual,iframe"), "default_order"),
    ("wise.json", lambda v: v.update(extra=1), "extra"),
    ("policy.json", lambda v: v["orders"]["mv"].update(thresholds=[0.5] * 3), "mv: lengths"),
    ("policy.json", lambda v: v["orders"]["mv"].update(thresholds=[2] * 4), "mv: thresholds"),
    ("policy.json", lambda v: v["orders"]["mv"].update(temperatures=[0] * 4), "mv: temperatures"),
    ("policy.json", lambda v: v["orders"].pop("mv,residual,iframe"), "default_order"),
])
def test_wrong_tables_name_file_and_key(
    copy: Path, name: str, change: Callable[[dict[str, Any]], object], key: str
) -> None:
    edit(copy / name, change)
    with pytest.raises(BundleError, match=key):
        read_bundle(copy)


@pytest.mark.parametrize("evil", [
    "/etc/passwd", "../outside.onnx", "segments/../../outside.onnx", "segments/./mv_1.onnx",
    "C:\\x.onnx", "..\\x.onnx", "", "segments//mv_1.onnx"])
def test_no_path_leaves_the_bundle(copy: Path, evil: str) -> None:
    (copy.parent / "outside.onnx").write_bytes(b"")

    def change(manifest: dict[str, Any]) -> None:
        manifest["segments"][0]["file"] = evil
        manifest["files"][evil] = {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}

    edit(copy / "manifest.json", change)
    with pytest.raises(BundleError, match="leaves the bundle or is not plain"):
        read_bundle(copy)


@pytest.mark.parametrize("name", [
    "manifest.json", "wise.json", "policy.json", "MODEL_CARD.md", "segments/mv_1.onnx", "segments"])
@pytest.mark.parametrize("inside", [True, False])
def test_links_in_a_bundle_are_refused(copy: Path, name: str, inside: bool) -> None:
    elsewhere = (copy if inside else copy.parent) / "elsewhere"
    os.rename(copy / name, elsewhere)
    (copy / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match=rf"{name} is a link; allowed: a plain"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["manifest.json", "wise.json", "segments/mv_1.onnx"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "/dev/zero", "/etc/shadow", "folder"])
def test_what_is_no_plain_file_is_refused_unopened(
    copy: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / name).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(copy / name)
        elif kind == "socket":
            monkeypatch.chdir((copy / name).parent)  # an address has 107 bytes at most
            listener.bind((copy / name).name)
        elif kind == "folder":
            (copy / name).mkdir()
        else:
            (copy / name).symlink_to(kind)
        with pytest.raises(BundleError, match=rf"{name} is (a link|a folder|neither)"):
            read_bundle(copy)  # a reader that opens the FIFO waits for ever


@pytest.mark.parametrize("name", ["wise.json", "policy.json", "MODEL_CARD.md",
                                  "segments/residual_2.onnx"])
def test_what_is_not_listed_is_not_looked_at(copy: Path, name: str) -> None:
    edit(copy / "manifest.json", lambda m: m["files"].pop(name))
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=f"missing from files is '{name}'"):
        read_bundle(copy)


def test_files_beyond_their_limit_are_refused_unread(copy: Path) -> None:
    os.truncate(copy / "manifest.json", 5 << 20)
    with pytest.raises(BundleError, match=r"manifest\.json has 5242880 bytes; allowed: 4194304"):
        read_bundle(copy)


@pytest.mark.parametrize(("name", "size"), [
    ("segments/mv_1.onnx", 1 << 40), ("wise.json", 1 << 30), ("MODEL_CARD.md", 1 << 30)])
def test_sizes_that_the_manifest_may_not_say(copy: Path, name: str, size: int) -> None:
    os.truncate(copy / name, size)  # a hole: it takes no room on the disk
    edit(copy / "manifest.json", lambda m: m["files"][name].update(bytes=size))
    with pytest.raises(BundleError, match=rf"files\.{name}\.bytes is {size}"):
        read_bundle(copy)


def test_the_bundle_itself_may_be_a_link(copy: Path) -> None:
    link = copy.with_name("link.edgepkd")
    link.symlink_to(copy)
    assert read_bundle(link).manifest.name == "tiny"
