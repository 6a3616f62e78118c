"""What is found wrong with one clip's file, and with an index as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.prepared import INDEX, SUMMARY
from edgepkd.datasets.training_form import encode, training_form
from edgepkd.datasets.verify import CheckJob, check_clip, index_problems
from edgepkd.video.limits import Limits
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene

ROWS = [{"path": f"videos/{label}/{split}.mp4", "label": label, "group": f"{label} {split}",
         "split": split} for label in ("run", "walk") for split in ("train", "calibration", "test")]


@pytest.fixture
def job(tmp_path: Path) -> CheckJob:
    """A whole clip in training form."""
    with open_video(str(encode_clip(tmp_path / "source.avi", moving_scene(6)))) as video:
        (tmp_path / "a.mp4").write_bytes(encode(video).content)
    return CheckJob(tmp_path, "a.mp4", sha256_of(tmp_path / "a.mp4"), 6, training_form(),
                    decode=True)


def test_a_whole_clip_has_nothing_wrong(job: CheckJob) -> None:
    assert check_clip(job) == ()
    assert check_clip(replace(job, sha256="", frames=None, form="")) == ()


def test_an_absent_or_exchanged_clip_is_seen_without_decoding(job: CheckJob) -> None:
    assert check_clip(replace(job, path="none.mp4", decode=False)) == ("is absent",)
    assert check_clip(replace(job, path="none.mp4", sha256="")) == ("is absent",)
    (job.folder / job.path).write_bytes(b"other")
    assert check_clip(replace(job, decode=False)) == (
        "has other content than when it was prepared (SHA-256)",)


def test_frames_and_form_are_compared_where_a_clip_is_decoded(job: CheckJob) -> None:
    assert check_clip(replace(job, frames=7)) == ("has 6 frames; the index says 7",)
    assert check_clip(replace(job, frames=7, decode=False)) == ()
    encode_clip(job.folder / "b.mp4", moving_scene(6))
    assert check_clip(replace(job, path="b.mp4", sha256="")) == (
        f"is mpeg4 96x64, not in the form {training_form()}",)


def test_what_does_not_open_or_asks_for_too_much_says_why(job: CheckJob) -> None:
    (text,) = check_clip(replace(job, limits=Limits(pixels=99)))
    assert "too many pixels" in text
    (job.folder / job.path).write_bytes(bytes(900))
    (text,) = check_clip(replace(job, sha256=""))
    assert "cannot be opened" in text


def test_an_index_that_fits_its_folder_has_nothing_wrong(tmp_path: Path) -> None:
    for row in ROWS:
        (tmp_path / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row["path"]).touch()
    assert list(index_problems(tmp_path, ROWS)) == []


def test_everything_that_is_wrong_with_an_index_is_said(tmp_path: Path) -> None:
    (tmp_path / "videos" / "run").mkdir(parents=True)
    (tmp_path / "videos" / "run" / "stray.mp4").touch()
    (tmp_path / "videos" / "run" / ".hidden.mp4").touch()
    (tmp_path / INDEX).touch()
    (tmp_path / SUMMARY).write_text('{"index_sha256": "0"}')
    assert list(index_problems(tmp_path, [*ROWS, ROWS[0]])) == [
        "lists videos/run/train.mp4 2 times",
        "does not list videos/run/stray.mp4",
        "is not the one that prepare.json was written with (SHA-256)"]
    (tmp_path / SUMMARY).write_text("[]")
    leak = [{**row, "group": "one"} if row["label"] == "run" else row for row in ROWS]
    found = list(index_problems(tmp_path, leak))
    assert any("train and calibration share the group one" in text for text in found)
    assert "cannot be compared: prepare.json is damaged" in found[-1]
