"""`data prepare` as a function: whole sets, resumed, refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.datasets.index import read_index
from edgepkd.datasets.layouts import SourceSpec
from edgepkd.datasets.official import SETS, OfficialSet
from edgepkd.datasets.pools import Pool
from edgepkd.datasets.prepared import Progress
from edgepkd.datasets.splits import Shares, split_three
from edgepkd.datasets.training_form import training_form
from edgepkd.errors import ConfigError, DataError, StorageError
from edgepkd.pipeline import prepare as verb
from edgepkd.pipeline.data import ClipPrepared, DataStarted, DataSummary
from edgepkd.pipeline.prepare import PrepareConfig
from edgepkd.temporaries import TemporaryFile
from tests.clips import encode_clip, moving_scene
from tests.datasets.sets import FakePool, contents, make_folder_set, problems
from tests.disks import FULL, full_disk

SHARES = Shares(test=0.25, calibration=0.34, always=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_folder_set(tmp_path / "source")


@pytest.fixture
def config(source: Path, tmp_path: Path) -> PrepareConfig:
    return PrepareConfig(SourceSpec(source), tmp_path / "set", SHARES, max_failures=0.3)


def prepare(config: PrepareConfig, pool: Pool | None = None) -> DataSummary:
    *_, last = verb.prepare(config, pool=pool or FakePool())
    assert isinstance(last, DataSummary)
    return last


def test_a_set_is_whole_and_training_can_read_it(config: PrepareConfig) -> None:
    summary = prepare(config)
    assert (summary.layout, summary.num_clips, summary.num_done, summary.num_kept) == (
        "folder", 8, 8, 0)
    assert summary.counts == {"train": {"run": 2, "walk": 2}, "calibration": {"run": 1, "walk": 1},
                              "test": {"run": 1, "walk": 1}}
    samples = read_index(config.folder / "index.csv")
    assert [len(part) for part in split_three(samples).parts().values()] == [4, 2, 2]
    assert {s.form for s in samples} == {training_form()}
    with (config.folder / "index.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert list(row) == ["path", "label", "group", "split", "sha256", "frames", "form", "source",
                         "source_sha256", "damaged"]
    assert (row["path"], row["source"], row["frames"]) == (
        "videos/run/g0.mp4", "run/g0.avi", "6")
    told = json.loads((config.folder / "prepare.json").read_text())
    assert told["counts"] == summary.counts
    assert told["settings"]["shares"]["test"] == 0.25
    assert told["no_look"] is None  # of so few clips a tree says nothing
    assert set(told["versions"]) == {"edgepkd", "av", "libavcodec", "python"}
    assert problems(config.folder, decode=True) == []


def test_events_come_as_clips_get_done(config: PrepareConfig) -> None:
    events = list(verb.prepare(config, pool=FakePool()))
    started = events[0]
    assert isinstance(started, DataStarted)
    assert (started.layout, started.num_clips, started.num_labels) == ("folder", 8, 2)
    assert [e.number for e in events if isinstance(e, ClipPrepared)] == list(range(1, 9))
    assert events[1] == ClipPrepared("videos/walk/g3.mp4", "walk/g3.avi", "done", "", 1)


def test_traits_of_the_sources_are_kept(config: PrepareConfig, source: Path) -> None:
    prepare(config)
    first = (config.folder / "traits.csv").read_bytes()
    rows = list(csv.DictReader(io.StringIO(first.decode())))
    assert [row["path"] for row in rows[:2]] == ["videos/run/g0.mp4", "videos/run/g1.mp4"]
    size = (source / "run" / "g0.avi").stat().st_size
    assert (rows[0]["codec"], rows[0]["frames"], rows[0]["bytes"]) == ("mpeg4", "6", str(size))
    # An earlier version noted none: they are read again.
    progress = config.folder / "progress.jsonl"
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    progress.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "traits"}) + "\n"
                                for line in lines))
    assert prepare(config).num_kept == 8
    assert (config.folder / "traits.csv").read_bytes() == first


@pytest.mark.slow
def test_the_no_look_floor_is_measured_on_what_is_not_for_test(tmp_path: Path) -> None:
    for label, frames in (("run", 4), ("walk", 9)):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number in range(14):
            encode_clip(tmp_path / "source" / label / f"{label}_{number}.avi",
                        moving_scene(frames, seed=100 * frames + number))
    summary = prepare(PrepareConfig(SourceSpec(tmp_path / "source"), tmp_path / "set"))
    assert summary.no_look is not None
    assert summary.no_look.num_clips == summary.num_clips - sum(summary.counts["test"].values())
    assert (summary.no_look.accuracy, summary.no_look.length) == (1.0, 1.0)
    told = json.loads((tmp_path / "set" / "prepare.json").read_text())
    assert told["no_look"]["accuracy"] == 1.0


def test_classes_that_test_has_no_clip_of_are_a_warning(
    config: PrepareConfig, source: Path
) -> None:
    rows = [f"{p.relative_to(source)},{p.parent.name},{p.stem},"
            f"{'test' if p.parent.name == 'run' and p.stem == 'g3' else 'train'}"
            for p in sorted(source.rglob("*.avi"))]
    (source / "index.csv").write_text("\n".join(["path,label,group,split", *(
        row for row in rows if not row.endswith("walk,g3,train"))]) + "\n")
    assert prepare(replace(config, shares=Shares())).notes[-1] == (
        "no test clip of walk: no result says anything of them")


def test_what_is_no_clip_is_listed(config: PrepareConfig, source: Path) -> None:
    (source / "notes.txt").write_text("x")
    (source / "run" / "gone.avi").symlink_to("nowhere.avi")
    started, *_, summary = verb.prepare(config, pool=FakePool())
    assert isinstance(started, DataStarted)
    assert isinstance(summary, DataSummary)
    assert started.skipped == summary.skipped == (
        ("run/gone.avi", "a broken link to nowhere.avi, which cannot be read: "
                         "no such file or directory"),
        ("notes.txt", "its suffix is not that of a video"))
    told = json.loads((config.folder / "prepare.json").read_text())
    assert told["skipped"] == [list(pair) for pair in summary.skipped]


def test_a_clip_that_is_gone_goes_whatever_its_label(config: PrepareConfig, source: Path) -> None:
    (source / "run").rename(source / "run..fast")
    prepare(config)
    (source / "run..fast" / "g0.avi").rename(source / "run..fast" / "new.avi")
    prepare(config)
    assert not (config.folder / "videos" / "run..fast" / "g0.mp4").exists()
    assert problems(config.folder) == []


def test_a_link_to_the_clips_that_were_made_is_refused(
    config: PrepareConfig, source: Path
) -> None:
    prepare(config)
    (source / "again").symlink_to(config.folder / "videos" / "run")
    with pytest.raises(DataError, match=r"again/g0\.mp4 is a clip that was made in .*set"):
        prepare(config)


def test_a_csv_without_splits_and_groups_is_prepared(config: PrepareConfig, source: Path) -> None:
    rows = []
    for number, path in enumerate(sorted(source.rglob("*.avi"))):
        path.rename(path.with_name(f"{number}.avi"))
        rows.append(f"{path.parent.name}/{number}.avi;{path.parent.name}")
    (source / "index.csv").write_bytes(
        "\r\n".join(["Path; LABEL", *rows, ""]).encode("utf-16"))
    summary = prepare(config)
    assert (summary.layout, summary.num_clips) == ("csv", 8)
    assert sum(summary.num_groups.values()) == 8
    group, split, leak, test, calibration = summary.notes
    assert group == "index.csv has no column group: a clip's group is its file's name"
    assert split == "index.csv has no column split: the splits are drawn"
    assert "train and in test at once" in leak
    assert test == ("test is drawn by whole groups (seed 0): 2 clips of 2 classes in 2 groups")
    assert calibration.startswith("calibration is drawn by whole groups of train (seed 0): 2 clips")
    assert problems(config.folder) == []


def test_a_stopped_run_leaves_no_index_and_is_gone_on_with(
    config: PrepareConfig, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(config, FakePool(until=5))
    assert not (config.folder / "index.csv").exists()
    # What a kill may leave: half a line, a file in the making.
    with (config.folder / "progress.jsonl").open("a") as stream:
        stream.write('{"path": "videos/ru')
    with TemporaryFile(config.folder / "videos" / "run" / "g0.mp4") as written:
        pass
    written.path.write_bytes(b"half")
    summary = prepare(config)
    assert (summary.num_kept, summary.num_done) == (5, 3)
    prepare(replace(config, folder=tmp_path / "at once"))
    left = ("prepare.json", "progress.jsonl")  # they tell of the run itself
    one, two = contents(config.folder), contents(tmp_path / "at once")
    assert {k: v for k, v in one.items() if k not in left} == {
        k: v for k, v in two.items() if k not in left}
    assert prepare(config).num_kept == 8


def test_only_what_changed_is_done_again(config: PrepareConfig, source: Path) -> None:
    prepare(config)
    encode_clip(source / "run" / "g1.avi", moving_scene(9, seed=77))
    (source / "walk" / "g0.avi").rename(source / "walk" / "new.avi")
    summary = prepare(config)
    assert (summary.num_done, summary.num_kept) == (2, 6)
    assert not (config.folder / "videos" / "walk" / "g0.mp4").exists()
    assert problems(config.folder, decode=True) == []


def test_failures_are_listed_and_left_out(config: PrepareConfig, source: Path) -> None:
    (source / "run" / "broken.avi").write_bytes(b"\0" * 900)
    (source / "run" / "empty.avi").touch()
    summary = prepare(config, FakePool(crash_on="walk/g1"))
    assert [name for name, _ in summary.failures] == [
        "run/broken.avi", "run/empty.avi", "walk/g1.avi"]
    assert summary.num_clips == 7
    with (config.folder / "failures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [name for name, _ in summary.failures]
    assert "empty (0 bytes)" in rows[1]["reason"]
    assert "process died" in rows[2]["reason"]
    assert problems(config.folder) == []


def test_too_many_failures_write_no_index_and_lose_nothing(
    config: PrepareConfig, source: Path
) -> None:
    (source / "run" / "empty.avi").touch()
    with pytest.raises(DataError, match=r"1 of 9 clips failed \(11%\); allowed: 0%.*empty\.avi"):
        prepare(replace(config, max_failures=0))
    assert not (config.folder / "index.csv").exists()
    assert "empty.avi" in (config.folder / "failures.csv").read_text()
    assert prepare(config).num_kept == 8


def test_a_label_of_which_nothing_is_left_is_an_error(config: PrepareConfig, source: Path) -> None:
    (source / "hop").mkdir()
    for number in range(4):
        (source / "hop" / f"h{number}.avi").touch()
    with pytest.raises(DataError, match="no clip of hop could be prepared"):
        prepare(replace(config, max_failures=1.0))


def test_equal_clips_on_two_sides_are_a_leak(config: PrepareConfig, source: Path) -> None:
    samples = {s.group: s for s in split_samples_of(config)}
    test = next(s for s in samples.values() if s.split == "test" and s.label == "run")
    train = next(s for s in samples.values() if s.split == "train" and s.label == "run")
    shutil.copy(test.path, train.path)
    with pytest.raises(DataError, match=rf"run/{train.path.name} \(train\).*have the same content"
                                        rf"|run/{test.path.name} \(test\).*have the same content"):
        prepare(config)
    assert not (config.folder / "index.csv").exists()


def split_samples_of(config: PrepareConfig) -> list[Any]:
    from edgepkd.datasets.layouts import list_clips
    from edgepkd.datasets.splits import assign_splits

    return [s for s in assign_splits(list_clips(config.source).samples, shares=config.shares)
            if s.label == "run"]


def test_a_published_split_is_kept_though_it_shares_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "hmdb"
    (source / "testTrainMulti_7030_splits").mkdir(parents=True)
    for row, label in enumerate(("hug", "kiss")):
        (source / label).mkdir()
        names = [f"{n}_{label}_u_nm_np1_ba_med_0.avi" for n in "ABCD"]
        for number, name in enumerate(names):
            encode_clip(source / label / name, moving_scene(4, seed=10 * row + number % 3))
        (source / "testTrainMulti_7030_splits" / f"{label}_test_split1.txt").write_text(
            "".join(f"{name} {part}\n" for name, part in zip(names, (2, 1, 1, 1), strict=True)))
    monkeypatch.setitem(SETS, "hmdb51", OfficialSet(2, ((6, 2),) * 3, "*_test_split{}.txt",
                                                    "testTrainMulti_7030_splits"))
    summary = prepare(PrepareConfig(SourceSpec(source), tmp_path / "set", SHARES))
    assert summary.counts["test"] == {"hug": 1, "kiss": 1}
    assert "2 clips of the published split have the same content" in summary.notes[-1]


def test_places_that_would_do_harm_are_refused(config: PrepareConfig, source: Path) -> None:
    for folder in (source, source / "run" / "set"):
        with pytest.raises(DataError, match="lies in"):
            prepare(replace(config, folder=folder))
    other = source.parent / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("dear")
    with pytest.raises(DataError, match="is not empty and no data set"):
        prepare(replace(config, folder=other))
    assert [path.name for path in other.iterdir()] == ["chapter1.txt"]
    with pytest.raises(DataError, match="is a file"):
        prepare(replace(config, folder=other / "chapter1.txt"))


def test_two_runs_in_one_folder_are_refused(config: PrepareConfig) -> None:
    with Progress(config.folder), pytest.raises(DataError, match="another process is preparing"):
        prepare(config)
    assert prepare(config).num_clips == 8


def test_nothing_is_written_before_the_list_is_right(config: PrepareConfig, source: Path) -> None:
    shutil.rmtree(source / "walk")
    with pytest.raises(DataError, match=r"1 label \(run\)"):
        prepare(config)
    assert not config.folder.exists()


def test_a_full_disk_ends_the_run_and_loses_nothing(config: PrepareConfig) -> None:
    with full_disk(writes=3), pytest.raises(StorageError, match=FULL) as caught:
        prepare(config)
    assert "run the same command again" in str(caught.value)
    assert prepare(config).num_kept == 3


def test_settings_are_checked(config: PrepareConfig) -> None:
    for change in ({"jobs": 0}, {"max_failures": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(config, **change)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.smoke
def test_real_processes_give_the_same_set(config: PrepareConfig, tmp_path: Path) -> None:
    prepare(config)
    other = replace(config, folder=tmp_path / "other", jobs=2)
    *_, summary = verb.prepare(other)
    assert isinstance(summary, DataSummary)
    assert (other.folder / "index.csv").read_bytes() == (config.folder / "index.csv").read_bytes()
