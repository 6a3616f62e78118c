"""Places that may be written: no source, no bundle, not each other, nothing that is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepkd.errors import UsageError
from edgepkd.outputs import Output, check_folder, check_outputs, open_output

LINES = b'{"schema_version": 1, "kind": "clip"}\n'


def check(out: Path | str, *, reads: tuple[Path, ...] = (), force: bool = True) -> Output:
    (found,) = check_outputs([("--json", Path(out))], reads=reads, force=force)
    return found


def refused(out: Path | str, reason: str, *, reads: tuple[Path, ...] = (), force: bool = True
            ) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        check(out, reads=reads, force=force)
    assert caught.value.hint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "demo.edgepkd"
    (folder / "segments").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / "segments" / "mv_1.onnx").write_bytes(b"1")
    return folder


def test_a_new_name_is_fit(tmp_path: Path) -> None:
    assert check(tmp_path / "a", force=False) == Output(
        "--json", tmp_path / "a", tmp_path.resolve() / "a", None)


def test_a_file_that_is_there_needs_force(tmp_path: Path) -> None:
    for content in (b"", LINES, b"other"):
        (tmp_path / "a").write_bytes(content)
        refused(tmp_path / "a", "a is there already; it is not overwritten", force=False)
        status = (tmp_path / "a").stat()
        assert check(tmp_path / "a").before == (status.st_dev, status.st_ino)


def names_of(path: Path) -> Iterator[str]:
    """Other names of a file, with a link to it, a hard link and a descriptor."""
    folder = path.parent
    (folder / "link").symlink_to(path.name)
    (folder / "links").symlink_to("link")
    (folder / "here").symlink_to(".")
    (folder / "hard").hardlink_to(path)
    yield from (f"{folder}/./{path.name}", f"{folder}//{path.name}", f"{folder}/x/../{path.name}",
                f"{folder}/link", f"{folder}/links", f"{folder}/here/{path.name}",
                f"{folder}/hard")


def test_a_source_is_refused_by_every_name(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source.parent / "x").mkdir()
    for name in (str(source), *names_of(source)):
        refused(name, "is the same file as .*clip.mp4, which is read", reads=(source,))
    monkeypatch.chdir(source.parent)
    for out, read in (("clip.mp4", source), ("./clip.mp4", Path("clip.mp4")),
                      (source, Path("clip.mp4"))):
        refused(out, "is the same file as", reads=(read,))
    with source.open("rb") as file:
        for name in (f"/proc/self/fd/{file.fileno()}", f"/dev/fd/{file.fileno()}",
                     f"/proc/{os.getpid()}/fd/{file.fileno()}"):
            refused(name, "is the same file as", reads=(source,))


def test_case_may_not_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--save .*A\.MP4 and --json .*a\.mp4, which is written"):
        check_outputs([("--json", tmp_path / "a.mp4"), ("--save", tmp_path / "A.MP4")])
    with pytest.raises(UsageError, match="which is written too"):
        check_outputs([("--json", tmp_path / "é")], writes=[tmp_path / "e\u0301"])


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "old").write_bytes(b"1")
    (tmp_path / "hard").hardlink_to(tmp_path / "old")
    for one, other in (("a", "a"), ("a", "here/a"), ("old", "hard")):
        with pytest.raises(UsageError, match="which is written too, are the same file"):
            check_outputs([("--json", tmp_path / one), ("--save", tmp_path / other)], force=True)
        with pytest.raises(UsageError, match="which is written too, are the same file"):
            check_outputs([("--json", tmp_path / one)], writes=[tmp_path / other], force=True)
    assert len(check_outputs([("--json", tmp_path / "a"), ("--save", tmp_path / "b")])) == 2


@pytest.mark.parametrize("name", ["manifest.json", "new.json", "segments/mv_1.onnx",
                                  "engines/openvino/new.json"])
def test_nothing_goes_into_a_bundle(bundle: Path, name: str) -> None:
    (bundle / "engines" / "openvino").mkdir(parents=True)
    (bundle.parent / "link").symlink_to(bundle / name)
    (bundle.parent / "folder").symlink_to(bundle)
    refused(bundle / name, "lies in the bundle")
    refused(bundle.parent / "folder" / name, "lies in the bundle")
    (bundle / name).write_bytes(b"1")
    refused(bundle.parent / "link", "lies in the bundle")
    bundle.rename(bundle.with_suffix(".other"))
    refused(bundle.with_suffix(".other") / name, "lies in the bundle")


def test_a_damaged_bundle_is_one_too(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    refused(bundle / "new.json", "lies in the bundle")


def test_a_bundle_that_is_read_is_not_reached_by_a_hard_link(bundle: Path) -> None:
    for name in ("manifest.json", "segments/mv_1.onnx"):
        out = bundle.parent / Path(name).name
        out.hardlink_to(bundle / name)
        refused(out, f"is the same file as .*{name}", reads=(bundle,))


def test_the_manifest_of_a_web_page_makes_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"{}")
    assert check(tmp_path / "answers.jsonl", force=False).before is None


def test_in_a_folder_that_is_read_only_json_lines_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (tmp_path / "link").symlink_to("clips")
    for name, content in (("a.mp4", b"1"), ("index.csv", b"path"), ("empty", b""),
                          ("run.json", b'{"schema_version": 1, "recipe": {}}')):
        (folder / name).write_bytes(content)
        refused(folder / name, "lies in .*clips, which is read", reads=(folder,))
        refused(tmp_path / "link" / name, "lies in .*clips, which is read", reads=(folder,))
        refused(folder / name, "lies in .*link, which is read", reads=(tmp_path / "link",))
    (folder / "out.jsonl").write_bytes(LINES)
    assert check(folder / "out.jsonl", reads=(folder,)).before is not None
    refused(folder / "out.jsonl", "is there already", reads=(folder,), force=False)
    assert check(folder / "new.jsonl", reads=(folder,), force=False).before is None


def test_links(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(tmp_path / "dangling", "is a link to nowhere, where nothing is")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "cannot be written: Too many levels of symbolic links")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").write_bytes(b"1")
    (tmp_path / "link").symlink_to("elsewhere/old")
    refused(tmp_path / "link", "is there already", force=False)
    assert check(tmp_path / "link").place == tmp_path.resolve() / "elsewhere" / "old"


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path, "cannot be written: it is a folder")
    refused(tmp_path / "no" / "a", "cannot be written: it lies in no folder that is there")
    refused(tmp_path / "file" / "a", "cannot be written")
    refused(tmp_path / ("a" * 256), "cannot be written: File name too long")
    refused("a\0b", "cannot be written: .*null")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    refused(tmp_path / "a", "cannot be written: Permission denied")


def test_pipes_and_devices_are_written_as_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        assert check(path, force=False).is_stream
    with open_output(check(os.devnull)) as null:
        null.write(b"1")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_in_a_file_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"before\n")
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with open_output(check(name, force=False)) as out:
                out.write(b"after\n")
            refused(name, "is the same file as", reads=(tmp_path / "out",))
        finally:
            os.dup2(before, 1)
            os.close(before)
    assert (tmp_path / "out").read_bytes() == b"before\nafter\n"


def test_a_file_that_grows_is_the_one_that_was_checked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    new = check(path)
    path.write_bytes(b"of another process")
    with pytest.raises(FileExistsError):
        open_output(new)
    old = check(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_output(old)
    path.symlink_to("b")
    (tmp_path / "b").write_bytes(b"1")
    with pytest.raises(OSError, match=re.escape(os.strerror(40))):
        open_output(old)
    assert (tmp_path / "b").read_bytes() == b"1"


def test_folders(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(bundle)
    for folder, reason in ((bundle, "in the bundle"), (bundle / "new" / "deep", "in the bundle"),
                           (tmp_path / "link" / "a", "in the bundle"),
                           (tmp_path / "file", "it is no folder")):
        with pytest.raises(UsageError, match=reason):
            check_folder("--cache", folder)
    check_folder("--cache", tmp_path / "new" / "deep")
    assert check_outputs([("--out", tmp_path / "new" / "a")], makes_folders=True)
    with pytest.raises(UsageError, match="it lies in no folder"):
        check_outputs([("--out", tmp_path / "file" / "a")], makes_folders=True)
