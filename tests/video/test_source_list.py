"""What a user names, as a list of sources; and what is passed over, which is said."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from edgepkd.errors import SourceError
from edgepkd.video.source_list import pattern_matches, resolve_sources


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(folder: Path, argument: str = "") -> list[str]:
    found = resolve_sources(str(folder / argument) if argument else str(folder))
    return [str(Path(one).relative_to(folder)) for one in found]


def skipped(argument: Path | str) -> list[str]:
    return [f"{one.path.name}: {one.reason}" for one in resolve_sources(argument).skipped]


def test_folder_pattern_and_file_resolve_in_natural_order(tmp_path) -> None:
    for name in ("clip10.mp4", "clip2.AVI", "sub/clip1.mkv", "notes.txt", ".hidden/clip.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    names = [Path(p).name for p in resolve_sources(str(tmp_path))]
    assert names == ["clip2.AVI", "clip10.mp4", "clip1.mkv"]
    assert resolve_sources(str(tmp_path / "clip*.mp4")) == [str(tmp_path / "clip10.mp4")]
    assert resolve_sources(str(tmp_path / "notes.txt")) == [str(tmp_path / "notes.txt")]
    odd = tmp_path / "a[1].mp4"
    odd.write_bytes(b"x")
    assert resolve_sources(str(odd)) == [str(odd)]
    for live in ("-", "rtsp://host/x", "/dev/video0"):
        assert resolve_sources(live) == [live]


@pytest.mark.parametrize(("argument", "message"), [
    ("nothing.mp4", "does not exist; allowed: a file, a folder"),
    ("*.nothing", "No file fits the pattern"),
    ("http://host/x.mp4", "not a source that edgepkd can open"),
    ("", "holds no video; allowed suffixes: .264"),
])
def test_what_is_not_there_is_said(tmp_path, argument: str, message: str) -> None:
    if "://" not in argument:
        argument = str(tmp_path / argument)
    with pytest.raises(SourceError, match=message.replace(".", r"\.")) as caught:
        resolve_sources(argument)
    assert caught.value.hint


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    files(tmp_path, "real/b.mp4", "top/a.mp4")
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "top" / "loop").symlink_to(tmp_path / "top")
    assert names(tmp_path / "top") == ["a.mp4", "linked/b.mp4"]
    assert skipped(tmp_path / "top") == ["loop: a link to a folder that it lies in"]


def test_what_a_folder_holds_beside_videos_is_said(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "a.txt", "sub/b.txt", "c.srt", "README", "cover.JPG")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    folder = tmp_path.name
    assert skipped(tmp_path) == [
        f"gone.mp4: a broken link to {tmp_path / 'nothing'}, which cannot be read: no such file or "
        "directory",
        f"{folder}: 1 file without a suffix: no suffix of a video",
        f"{folder}: 1 file with .srt: no suffix of a video",
        f"{folder}: 2 files with .txt: no suffix of a video",
        f"{folder}: 1 file with .jpg: a picture, not a video"]


def test_a_folder_without_videos_says_what_it_holds(tmp_path: Path) -> None:
    files(tmp_path, "a.txt", "one.jpg")
    with pytest.raises(SourceError, match=r"holds no video \(found: .*1 file with \.txt.*\.jpg"):
        resolve_sources(str(tmp_path))


@pytest.mark.parametrize("suffix", [
    ".lrv", ".dav", ".QT", ".360", ".insv", ".mod", ".tod", ".m2t", ".y4m", ".3g2", ".265"])
def test_suffixes_of_cameras_and_phones_are_videos(tmp_path: Path, suffix: str) -> None:
    files(tmp_path, f"clip{suffix}")
    assert names(tmp_path) == [f"clip{suffix}"]


def test_a_folder_of_pictures_is_one_source(tmp_path: Path) -> None:
    files(tmp_path, "a/1.jpg", "a/2.jpg", "a/labels.txt", "b/1.png", "b/2.png", "c/1.jpg")
    assert names(tmp_path) == ["a", "b"]
    assert skipped(tmp_path) == [
        f"{tmp_path.name}: 1 file with .txt: no suffix of a video",
        f"{tmp_path.name}: 1 file with .jpg: a picture, not a video"]
    assert resolve_sources(str(tmp_path / "a")) == [str(tmp_path / "a")]


def test_pictures_beside_videos_are_none(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "1.jpg", "2.jpg")
    assert names(tmp_path) == ["a.mp4"]
    assert skipped(tmp_path) == [f"{tmp_path.name}: 2 files with .jpg: a picture, not a video"]
    assert names(tmp_path, "*") == ["a.mp4"]
    assert skipped(str(tmp_path / "*")) == [
        "1.jpg: a picture, and there are videos", "2.jpg: a picture, and there are videos"]


def test_a_pattern_that_fits_pictures_is_one_source_for_each_folder(tmp_path: Path) -> None:
    files(tmp_path, "a/1.jpg", "a/2.jpg", "b[0]/1.jpg", "b[0]/2.jpg", "c/1.jpg")
    assert names(tmp_path, "a/*.jpg") == ["a/*.jpg"]
    assert names(tmp_path, "c/*.jpg") == ["c/1.jpg"], "one picture is one picture"
    found = resolve_sources(str(tmp_path / "*" / "*.jpg"))
    assert [[path.name for path in pattern_matches(one)] for one in found[:2]] == [
        ["1.jpg", "2.jpg"]] * 2
    assert found[2] == str(tmp_path / "c" / "1.jpg")
    for pattern in ("*", "**", "**/*.jpg"):
        assert len(resolve_sources(str(tmp_path / "a" / pattern))) == 1


def test_a_pattern_says_what_it_fits_and_is_no_file(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "sub/b.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    assert names(tmp_path, "*") == ["a.mp4"]
    assert skipped(str(tmp_path / "*")) == [
        "gone.mp4: it does not exist: it is a broken link",
        "sub: a folder, the pattern is for files"]
    with pytest.raises(SourceError, match=r"No file fits the pattern .*sub: a folder"):
        resolve_sources(str(tmp_path / "su*"))


def test_numbers_in_a_pattern_are_those_of_printf(tmp_path: Path) -> None:
    files(tmp_path, "img_9.jpg", "img_10.jpg", "img_00011.jpg", "img_x.jpg", "50%.jpg", "5%d.mp4")
    fits = {pattern: [path.name for path in pattern_matches(str(tmp_path / pattern))]
            for pattern in ("img_%d.jpg", "img_%05d.jpg", "%d%%.jpg", "no_%d.jpg")}
    assert fits == {"img_%d.jpg": ["img_9.jpg", "img_10.jpg", "img_00011.jpg"],
                    "img_%05d.jpg": ["img_00011.jpg"], "%d%%.jpg": ["50%.jpg"], "no_%d.jpg": []}
    assert names(tmp_path, "img_%d.jpg") == ["img_%d.jpg"]
    assert names(tmp_path, "5%d.mp4") == ["5%d.mp4"], "a file that is called so"
    with pytest.raises(SourceError, match="No file fits the pattern"):
        resolve_sources(str(tmp_path / "no_%d.jpg"))


def test_several_sources_keep_their_order_and_what_comes_twice(tmp_path: Path) -> None:
    files(tmp_path, "b.mp4", "a.mp4")
    a, b, file = tmp_path / "a.mp4", str(tmp_path / "b.mp4"), io.BytesIO(b"x")
    assert resolve_sources([b, a, file, b]) == [b, str(a), file, b]
    assert resolve_sources((a,)) == [str(a)]
    assert resolve_sources([tmp_path, b]) == [str(a), b, b]
    assert resolve_sources(file) == [file]
    with pytest.raises(SourceError, match="no source is named"):
        resolve_sources([])
    with pytest.raises(SourceError, match="a source is of type int"):
        resolve_sources([b, 7])


def test_a_path_is_never_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "-")
    monkeypatch.chdir(tmp_path)
    assert resolve_sources(Path("-")) == ["./-"]
    assert resolve_sources("-") == ["-"]


def test_a_pattern_that_the_shell_has_filled_in_is_told_apart(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg", "a.mp4")
    first, second = str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")
    with pytest.raises(SourceError, match=r"1\.jpg and 1 more are pictures") as caught:
        resolve_sources([first, second])
    assert "quoted pattern" in str(caught.value)
    assert len(resolve_sources([first, str(tmp_path / "a.mp4")])) == 2
