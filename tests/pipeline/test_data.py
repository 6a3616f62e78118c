"""What a finished set consists of, whichever verb made it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.prepare_clip import ClipResult
from edgepkd.datasets.prepared import PreparedClip, Progress
from edgepkd.pipeline.data import DataSummary, files_of, finish, settings_of
from edgepkd.pipeline.synth import SynthConfig

CLIPS = tuple(
    PreparedClip(f"videos/{label}/{n}.mp4", label, f"g{n}", split, f"{label}{n}", 6, "form",
                 f"{label}/{n}.avi", "", damaged)
    for label in ("run", "walk") for n, split, damaged in (
        (0, "train", 0), (1, "train", 2), (2, "calibration", 0), (3, "test", 0)))


def finished(folder: Path, clips: tuple[PreparedClip, ...] = CLIPS) -> DataSummary:
    with Progress(folder) as progress:
        return finish(folder, clips, progress, settings={"seed": 3}, layout="folder",
                      failures=(("x.avi", "is empty"),), notes=("a note",), num_kept=2, wall_s=1.0)


def test_a_summary_counts_clips_groups_and_damage(tmp_path: Path) -> None:
    summary = finished(tmp_path)
    assert (summary.num_clips, summary.num_done, summary.num_kept, summary.num_damaged) == (
        8, 6, 2, 2)
    assert summary.counts == {"train": {"run": 2, "walk": 2}, "calibration": {"run": 1, "walk": 1},
                              "test": {"run": 1, "walk": 1}}
    assert summary.num_groups == {"train": 2, "calibration": 1, "test": 1}


def test_it_is_written_beside_the_index(tmp_path: Path) -> None:
    finished(tmp_path)
    told = json.loads((tmp_path / "prepare.json").read_text())
    assert (told["schema_version"], told["num_clips"], told["settings"]) == (1, 8, {"seed": 3})
    assert told["failures"] == [["x.avi", "is empty"]]
    assert len(told["index_sha256"]) == 64
    assert len((tmp_path / "index.csv").read_text().splitlines()) == 9
    written = {path.name for path in tmp_path.iterdir()}
    assert written <= {path.name for path in files_of(tmp_path)}


@pytest.mark.parametrize(("path", "goes"), [
    ("videos/run/old.mp4", True), ("videos/../kept.mp4", False), ("kept.mp4", False)])
def test_clips_of_earlier_runs_go_and_nothing_else(tmp_path: Path, path: str, goes: bool) -> None:
    with Progress(tmp_path) as progress:
        progress.add(ClipResult(path, "done"))
        progress.add(ClipResult(CLIPS[0].path, "done"))
    for file in (tmp_path / "videos" / "run" / "old.mp4", tmp_path / CLIPS[0].path,
                 tmp_path / "kept.mp4"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    finished(tmp_path)
    assert (tmp_path / path).exists() is not goes
    assert (tmp_path / CLIPS[0].path).exists()


def test_settings_become_plain_values(tmp_path: Path) -> None:
    config = replace(SynthConfig(tmp_path), seed=5)
    assert settings_of(config) == {
        "folder": str(tmp_path), "num_classes": 4, "num_clips": 48, "clip_frames": 36, "seed": 5,
        "shares": {"test": 0.2, "calibration": 0.2, "seed": 0, "always": False}}
