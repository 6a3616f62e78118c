"""One clip: done, kept, failed with a reason, or no room to write it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.prepare_clip import ClipJob, ClipResult, prepare_clip
from edgepkd.datasets.training_form import training_form
from edgepkd.datasets.traits import probed_traits
from edgepkd.video.source import open_video
from tests.clips import encode_clip, moving_scene
from tests.disks import full_disk


@pytest.fixture
def job(tmp_path: Path) -> ClipJob:
    source = encode_clip(tmp_path / "source.avi", moving_scene(6))
    return ClipJob(source, tmp_path / "set", "videos/run/source.mp4")


def test_a_clip_is_written_with_its_facts(job: ClipJob) -> None:
    target = job.folder / job.path
    result = prepare_clip(job)
    assert result == ClipResult(job.path, "done", "", training_form(), sha256_of(target), 6,
                                sha256_of(job.source), 0, traits=probed_traits(job.source))
    assert result.traits is not None
    assert [p.name for p in target.parent.iterdir()] == ["source.mp4"]


def test_a_finished_clip_is_kept_unless_anything_differs(job: ClipJob) -> None:
    done = prepare_clip(job)
    target = job.folder / job.path
    before = target.stat().st_mtime_ns
    assert prepare_clip(replace(job, known=done)) == replace(done, status="kept")
    assert target.stat().st_mtime_ns == before
    for other in (replace(done, form="old"), replace(done, source_sha256="0")):
        assert prepare_clip(replace(job, known=other)) == done
    target.write_bytes(b"cut off")
    assert prepare_clip(replace(job, known=done)) == done
    target.unlink()
    assert prepare_clip(replace(job, known=done)) == done
    encode_clip(job.source, moving_scene(7))
    assert prepare_clip(replace(job, known=done)).frames == 7


def test_another_frame_rate_prepares_a_clip_anew(
    job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        "edgepkd.datasets.prepare_clip.open_video",
        lambda source, *, fps, limits: asked.append(fps) or open_video(
            source, fps=fps, limits=limits))
    done = prepare_clip(replace(job, fps=10.0))
    assert (done.status, done.fps, asked) == ("done", 10.0, [10.0])
    assert prepare_clip(replace(job, fps=10.0, known=done)).status == "kept"
    assert prepare_clip(replace(job, known=done)).status == "done"


@pytest.mark.parametrize(("content", "reason"), [
    (b"", r"is empty \(0 bytes\)"), (b"\0" * 900, "cannot be opened"),
    (b"RIFF1234AVI LIST", "cannot be opened|no video stream"),
])
def test_what_is_no_video_fails_with_a_reason(job: ClipJob, content: bytes, reason: str) -> None:
    job.source.write_bytes(content)
    result = prepare_clip(job)
    assert result.status == "failed"
    assert re.search(reason, result.reason)
    assert not job.folder.exists()


def test_one_frame_and_an_absent_file_fail(job: ClipJob) -> None:
    encode_clip(job.source, moving_scene(1))
    assert "1 frame decodes, which holds no motion" in prepare_clip(job).reason
    job.source.unlink()
    assert "cannot be read: No such file" in prepare_clip(job).reason


def test_a_surprise_in_the_decoder_is_a_failure_of_this_clip_only(
    job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(video: object) -> None:
        raise ValueError("odd plane")

    monkeypatch.setattr("edgepkd.datasets.prepare_clip.encode", broken)
    assert (prepare_clip(job).status, prepare_clip(job).reason) == (
        "failed", "ValueError: odd plane")


def test_a_full_disk_is_not_the_clips_fault(job: ClipJob) -> None:
    with full_disk():
        result = prepare_clip(job)
    assert result.status == "unwritable"
    assert "source.mp4 cannot be written: No space left on device" in result.reason
