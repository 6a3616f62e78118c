"""Folders of classes and CSV lists become samples; names of output files are safe and unique."""

from __future__ import annotations

from pathlib import Path

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
    ("x.avi,,anna,train", "label '' cannot name a folder"),
    ("x.avi,run,,train", "1 clips have no group"),
    ("x.avi,run", "line 2 has fewer cells"),
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
             "run/x:\udcff.avi", f"run/{'n' * 300}.avi"]
    samples = [Sample(root / path, path.split("/")[0], "g", "") for path in paths]
    names = output_names(samples, root=root, suffix=".mp4")
    assert names[3] == "videos/walk/a.mp4"
    assert len({name.lower() for name in names}) == len(names)
    assert names[5] == "videos/run/x__.mp4"
    for name in names:
        assert name.startswith("videos/")
        assert name.count("/") == 2
        assert not Path(name).name.startswith(".")
        assert len(Path(name).name) < 120
    assert names == output_names(samples, root=root, suffix=".mp4")
