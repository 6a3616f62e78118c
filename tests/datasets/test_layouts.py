"""Folders of classes and CSV lists become samples; names of output files are safe and unique."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from edgepkd.datasets.index import Sample
from edgepkd.datasets.layouts import SourceSpec, list_clips, output_names
from edgepkd.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def facts(samples: tuple[Sample, ...]) -> list[tuple[str, str, str]]:
    return [(s.path.name, s.label, s.group) for s in samples]


def test_a_folder_is_a_class_and_a_file_its_own_group(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.avi", "run/sub/a.MP4", "walk/c.mkv", "run/notes.txt", "run/.x.avi",
          ".git/h.avi", "loose.avi")
    listing = list_clips(SourceSpec(tmp_path))
    assert listing.layout == "folder"
    assert facts(listing.samples) == [
        ("b.avi", "run", "b"), ("a.MP4", "run", "a"), ("c.mkv", "walk", "c")]
    assert [(s.path.name, s.reason) for s in listing.skipped] == [
        ("loose.avi", "it lies in no folder of a class"),
        ("notes.txt", "its suffix is not that of a video")]


def test_links_to_classes_clips_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/deep/a.avi", "store/b.avi", "one.avi", "set/walk/c.avi")
    source = tmp_path / "set"
    (source / "run").symlink_to(tmp_path / "store")
    (source / "walk" / "sub").symlink_to("../../store/deep")
    with pytest.raises(DataError, match=r"listed more than once.*run/deep/a\.avi and .*walk/sub"):
        list_clips(SourceSpec(source))
    (source / "walk" / "sub").unlink()
    (source / "walk" / "d.avi").symlink_to(tmp_path / "one.avi")
    (source / "walk" / "up").symlink_to("..")
    (source / "walk" / "gone.avi").symlink_to("nowhere")
    (source / "run" / "again").symlink_to("deep")
    listing = list_clips(SourceSpec(source))
    assert facts(listing.samples) == [("a.avi", "run", "a"), ("b.avi", "run", "b"),
                                      ("c.avi", "walk", "c"), ("d.avi", "walk", "d")]
    assert {s.path.relative_to(source).as_posix(): s.reason for s in listing.skipped} == {
        "walk/up": "a link to a folder that it lies in",
        "walk/gone.avi": "a broken link to nowhere, which cannot be read: "
                         "no such file or directory",
        "run/deep/a.avi": "the same file as run/again/a.avi"}


@pytest.mark.parametrize("label", [
    "चलना", "เดิน", "walk 🚶", "50% off", "\U0001f469\u200d\U0001f467", "a:b?", "$x_1$", "Mr.", "(",
    "-x", "#1", "C:", "ก" * 85,
])
def test_any_text_that_can_name_a_folder_is_a_label(tmp_path: Path, label: str) -> None:
    touch(tmp_path, f"{label}/x.avi", "other/y.avi")
    samples = list_clips(SourceSpec(tmp_path)).samples
    assert {s.label for s in samples} == {label, "other"}
    (tmp_path / "index.csv").write_text(f"path,label\n{label}/x.avi,{label}\nother/y.avi,other\n",
                                        encoding="utf-8")
    listing = list_clips(SourceSpec(tmp_path))
    assert listing.layout == "csv"
    assert {s.label for s in listing.samples} == {label, "other"}
    assert len(listing.notes) == 3


def test_a_decomposed_label_is_composed_and_its_clip_found(tmp_path: Path) -> None:
    touch(tmp_path, "Cafe\u0301/x.avi", "bar/y.avi")
    labels = [s.label for s in list_clips(SourceSpec(tmp_path)).samples]
    assert labels == ["Caf\u00e9", "bar"]


def test_labels_that_cannot_be_told_apart_or_name_no_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x.avi", "y.avi")
    (tmp_path / "index.csv").write_text("path,label\nx.avi,Caf\u00e9\ny.avi,Cafe\u0301\n",
                                        encoding="utf-8")
    with pytest.raises(DataError, match="differ only in case, blanks or Unicode form"):
        list_clips(SourceSpec(tmp_path))
    (tmp_path / "index.csv").write_text("path,label\nx.avi,a/b\ny.avi,c\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot name a folder: it holds '/'"):
        list_clips(SourceSpec(tmp_path))


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    try:
        touch(tmp_path, "a\udcff/x.avi", "b/y.avi")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(DataError, match=r"'a\\udcff' cannot .* holds a byte that is not UTF-8"):
        list_clips(SourceSpec(tmp_path))


def test_a_pattern_finds_the_group(tmp_path: Path) -> None:
    touch(tmp_path, "run/anna_run_1.avi", "walk/bob_walk_2.avi")
    spec = SourceSpec(tmp_path, group_pattern=r"^([a-z]+)_")
    assert [s.group for s in list_clips(spec).samples] == ["anna", "bob"]
    touch(tmp_path, "walk/7.avi")
    with pytest.raises(DataError, match=r"finds no group in '7\.avi'"):
        list_clips(spec)


@pytest.mark.parametrize(("settings", "message"), [
    ({"group_pattern": "("}, "no regular expression"), ({"group_pattern": "x"}, "capture group"),
    ({"layout": "zip"}, "allowed: auto, folder"), ({"split": 4}, "allowed: 1, 2, 3"),
])
def test_settings_are_checked(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SourceSpec(tmp_path, **settings)  # type: ignore[arg-type]


def test_a_csv_beside_the_clips_is_found_and_another_one_can_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "data/x.avi", "data/y.avi")
    index = tmp_path / "data" / "index.csv"
    index.write_text("path,label,group,split,dataset\nx.avi,run,anna,train,S\ny.avi,run,b,val,T\n")
    assert facts(list_clips(SourceSpec(tmp_path / "data")).samples) == [
        ("x.avi", "run", "anna"), ("y.avi", "run", "b")]
    assert len(list_clips(SourceSpec(tmp_path / "data", dataset="S")).samples) == 1
    other = index.rename(tmp_path / "other.csv")
    listing = list_clips(SourceSpec(tmp_path / "data", index=other))
    assert listing.layout == "csv"
    assert listing.samples[0].path == tmp_path / "data" / "x.avi"


@pytest.mark.parametrize(("rows", "message"), [
    ("x.avi,run,anna,train\nx.avi,walk,bob,test", "listed more than once"),
    ("x.avi,../run,anna,train", r"label '\.\./run' cannot name a folder"),
    ("x.avi, ,anna,train", "line 2 has no label"),
    ("x.avi,run,,train", "1 clips have no group"),
    ("x.avi,run", "line 2 has 2 cells, fewer than the head"),
    ("gone.avi,run,anna,train", "absent"),
])
def test_a_wrong_csv_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    touch(tmp_path, "x.avi")
    (tmp_path / "index.csv").write_text(f"path,label,group,split\n{rows}\n")
    with pytest.raises(DataError, match=message):
        list_clips(SourceSpec(tmp_path))


def test_nothing_to_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        list_clips(SourceSpec(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no folder in .* holds a video"):
        list_clips(SourceSpec(tmp_path))
    touch(tmp_path, "train/x.avi", "test/y.avi")
    with pytest.raises(DataError, match="are splits"):
        list_clips(SourceSpec(tmp_path))
    with pytest.raises(DataError, match="no official split files"):
        list_clips(SourceSpec(tmp_path, split_files=tmp_path))


def test_output_names_are_unique_and_stay_in_the_folder() -> None:
    root = Path("/set")
    paths = ["run/a.avi", "run/sub/a.mp4", "run/A.mkv", "walk/a.avi", "run/..avi",
             "run/x:\udcff.avi", f"run/{'n' * 300}.avi", f"run/{'ก' * 200}.avi",
             f"run/{'ก' * 201}.avi", "run/चलना 🚶%.avi", "run/Caf\u00e9.avi", "run/Cafe\u0301.avi",
             "walk/b.avi", "walk/B.avi", "run/a\nb.avi"]
    samples = [Sample(root / path, path.split("/")[0], "g", "") for path in paths]
    names = output_names(samples, root=root, suffix=".mp4")
    assert names[3] == "videos/walk/a.mp4"
    assert len({normalize("NFD", name).lower() for name in names}) == len(names)
    assert names[5] == "videos/run/x__.mp4"
    assert names[9] == "videos/run/चलना 🚶%.mp4"
    assert names[-1] == "videos/run/a_b.mp4"
    for name in names:
        assert name.startswith("videos/")
        assert name.count("/") == 2
        assert not Path(name).name.startswith(".")
        assert len(Path(name).name.encode()) < 220  # a temporary name beside it is longer
    assert names == output_names(samples, root=root, suffix=".mp4")


def test_a_clip_called_like_another_with_its_hash_gets_a_name_of_its_own() -> None:
    paths = ["run/a.avi", "run/a.mp4"]
    samples = [Sample(Path("/set") / path, "run", "g", "") for path in paths]
    hashed = output_names(samples, root=Path("/set"), suffix=".mp4")
    third = Sample(Path("/set") / hashed[0].replace("videos", "sub"), "run", "g", "")
    names = output_names([*samples, third], root=Path("/set"), suffix=".mp4")
    assert len(set(names)) == 3
