"""A bundle is written whole or not at all, and over nothing but a bundle."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle import writing
from edgepkd.bundle.manifest import CascadeEntry, PolicyEntry
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.errors import BundleError, StorageError
from tests.bundle.changes import write
from tests.runtime.bundles import make_bundle, make_manifest


def test_layout_on_disk(pristine: Bundle) -> None:
    names = {path.relative_to(pristine.path).as_posix()
             for path in pristine.path.rglob("*") if path.is_file()}
    segments = {f"segments/{m}_{k}.onnx" for m in ("mv", "residual", "iframe") for k in range(1, 5)}
    assert names == segments | {"manifest.json", "wise.json", "policy.json", "MODEL_CARD.md"}
    manifest = json.loads((pristine.path / "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    assert set(manifest["files"]) == names - {"manifest.json"}


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
        with pytest.raises(BundleError, match=message) as caught:
            write(target, **changes)
        assert "damaged" not in str(caught.value.hint), "that is for whoever was given a bundle"
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


@pytest.mark.slow
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


def test_a_stacked_input_makes_the_manifest_a_newer_one(tmp_path: Path, pristine: Bundle) -> None:
    plain = json.loads((pristine.path / "manifest.json").read_text())
    assert "stack" not in plain["inputs"]["mv"]
    bundle = make_bundle(tmp_path, stack=True)
    path = bundle.path / "manifest.json"
    values = json.loads(path.read_text())
    assert values["schema_version"] == read_bundle(bundle.path).manifest.schema_version == 3
    assert values["inputs"]["mv"]["stack"] is True
    assert read_bundle(bundle.path).manifest.inputs["mv"].input_shape == (1, 4, 32, 32)
    assert bundle.segment_content("mv", 1)
    path.write_text(json.dumps(values | {"schema_version": 2}))
    with pytest.raises(BundleError, match="schema_version is 2; allowed: 3, because an input is"):
        read_bundle(bundle.path)
