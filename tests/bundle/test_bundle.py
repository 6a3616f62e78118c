"""Bundles: what is written is read back, and whatever is wrong is refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle import writing
from edgepkd.bundle.manifest import CascadeEntry, PolicyEntry
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.bundle.writing import write_bundle
from edgepkd.config import InputSpec
from edgepkd.errors import BundleError, StorageError
from tests.runtime.bundles import (
    LABELS,
    make_bundle,
    make_manifest,
    make_policy,
    make_segments,
    make_wise,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def copy(pristine: Bundle, tmp_path: Path) -> Path:
    """A bundle of one's own to break."""
    return Path(shutil.copytree(pristine.path, tmp_path / "copy.edgepkd"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a bundle, and the manifest's entry for it, as its writer would."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    if path.name != "manifest.json":
        content = path.read_bytes()
        edit(path.with_name("manifest.json"), lambda m: m["files"][path.name].update(
            sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)))


def write(path: Path, **changes: Any) -> Bundle:
    parts: dict[str, Any] = {
        "manifest": make_manifest(), "wise": make_wise(), "policy": make_policy(),
        "segments": make_segments(), "model_card": "# tiny", **changes}
    return write_bundle(path, **parts)


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


def test_layout_on_disk(pristine: Bundle) -> None:
    names = {path.relative_to(pristine.path).as_posix()
             for path in pristine.path.rglob("*") if path.is_file()}
    segments = {f"segments/{m}_{k}.onnx" for m in ("mv", "residual", "iframe") for k in range(1, 5)}
    assert names == segments | {"manifest.json", "wise.json", "policy.json", "MODEL_CARD.md"}
    manifest = json.loads((pristine.path / "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    assert set(manifest["files"]) == names - {"manifest.json"}


# ---- damage


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
    edit(copy / name, lambda v: v.update(schema_version=3, something_new=1))
    with pytest.raises(BundleError, match=f"{name} has schema_version 3") as caught:
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


# ---- writing


def test_writing_refuses_what_it_could_not_read(tmp_path: Path) -> None:
    target = tmp_path / "new.edgepkd"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"wise": {}}, "default_order"),
        ({"policy": {"mv,residual,iframe": PolicyEntry((1.0,), (0.5,))}}, "lengths"),
        ({"segments": {}}, "segments given"),
        ({"manifest": make_manifest(labels=("one",))}, "labels"),
        ({"manifest": make_manifest(cascade=CascadeEntry(("residual",)))}, "default_order"),
        ({"manifest": make_manifest(provenance={"x": object()})}, "plain JSON"),
    ]
    for changes, message in wrong:
        with pytest.raises(BundleError, match=message):
            write(target, **changes)
        assert list(tmp_path.iterdir()) == [], "nothing may be left behind"


def test_segment_paths_of_a_manifest_cannot_leave_while_writing(tmp_path: Path) -> None:
    manifest = make_manifest()
    first = replace(manifest.segments[0], file="../../escaped.onnx")
    with pytest.raises(BundleError, match="leaves the bundle"):
        write(tmp_path / "a" / "new.edgepkd",
              manifest=replace(manifest, segments=(first, *manifest.segments[1:])))
    assert not list(tmp_path.rglob("escaped.onnx"))


def test_existing_bundle_is_replaced_only_when_allowed(copy: Path) -> None:
    with pytest.raises(BundleError, match="exists already"):
        write(copy)
    (copy / "old.txt").write_text("from before")
    written = write(copy, manifest=make_manifest(name="second"), overwrite=True)
    assert written.path == copy
    assert read_bundle(copy).manifest.name == "second"
    assert not (copy / "old.txt").exists()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("name", ["photos.edgepkd", "photos"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "dear.jpg").write_text("precious")
    with pytest.raises(BundleError):
        write(tmp_path / name, overwrite=True)
    assert (tmp_path / name / "dear.jpg").read_text() == "precious"


@pytest.mark.parametrize("target", ["file.edgepkd", "link.edgepkd", "dangling.edgepkd"])
def test_links_and_files_are_never_replaced(copy: Path, target: str) -> None:
    copy.with_name("file.edgepkd").write_text("precious")
    copy.with_name("link.edgepkd").symlink_to(copy)
    copy.with_name("dangling.edgepkd").symlink_to("nowhere")
    with pytest.raises(BundleError, match="is not a bundle; it is not overwritten"):
        write(copy.with_name(target), overwrite=True)
    assert read_bundle(copy).manifest.name == "tiny"
    assert len(list(copy.parent.iterdir())) == 4


def test_a_folder_whose_manifest_is_a_link_is_not_replaced(copy: Path) -> None:
    os.rename(copy / "manifest.json", copy.parent / "m.json")
    (copy / "manifest.json").symlink_to(copy.parent / "m.json")
    with pytest.raises(BundleError, match="is not a bundle"):
        write(copy, overwrite=True)


def test_old_bundle_survives_a_full_disk(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> Bundle:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "read_bundle", full)
    with pytest.raises(StorageError, match="No space left"):
        write(copy, manifest=make_manifest(name="second"), overwrite=True)
    monkeypatch.undo()
    assert read_bundle(copy).manifest.name == "tiny"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


KILLED = """
import os, sys
from edgepkd import renames
from edgepkd.bundle.writing import write_bundle
from tests.runtime.bundles import make_manifest, make_policy, make_segments, make_wise

renames._rename = lambda *_, **__: False  # a file system that cannot exchange names
rename = os.rename
def killing(source, target, **where):
    rename(source, target, **where)
    if str(target).endswith(".old"):
        os.kill(os.getpid(), 9)
os.rename = killing
write_bundle(sys.argv[1], manifest=make_manifest(name="second"), wise=make_wise(),
             policy=make_policy(), segments=make_segments(), model_card="", overwrite=True)
"""


@pytest.mark.parametrize("again", ["read", "write", "replace"])
def test_old_bundle_comes_back_when_the_swap_was_killed(copy: Path, again: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(copy)], timeout=120)
    assert done.returncode == -9
    assert not copy.exists()
    if again == "read":
        assert read_bundle(copy).manifest.name == "tiny"
    elif again == "write":
        with pytest.raises(BundleError, match="exists already"):
            write(copy)
    else:
        write(copy, manifest=make_manifest(name="third"), overwrite=True)
        assert read_bundle(copy).manifest.name == "third"
        assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_of_two_writers_the_second_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, read = tmp_path / "new.edgepkd", read_bundle

    def slowly(path: Path) -> Bundle:
        monkeypatch.undo()
        write(target, manifest=make_manifest(name="first"))
        return read(path)

    monkeypatch.setattr(writing, "read_bundle", slowly)
    with pytest.raises(BundleError, match="exists already"):
        write(target, manifest=make_manifest(name="second"))
    assert read_bundle(target).manifest.name == "first"


@pytest.mark.parametrize("name", ["n" * 300 + ".edgepkd", "no/" * 2000 + "n.edgepkd"])
def test_names_that_no_file_system_takes(tmp_path: Path, name: str) -> None:
    for use in (lambda: read_bundle(tmp_path / name), lambda: write(tmp_path / name)):
        with pytest.raises((BundleError, StorageError)):
            use()


def test_name_must_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"allowed: NAME\.edgepkd"):
        write(tmp_path / "bundle")
