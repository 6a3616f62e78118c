"""The verb `vectors`: whole folders or none, cameras, what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepkd.errors import (
    ConfigError,
    DecodeError,
    SourceError,
    StorageError,
    UsageError,
)
from edgepkd.pipeline.vectors import (
    VectorsConfig,
    VectorsSummary,
    VectorsWritten,
    vectors,
)
from edgepkd.video import source as video_source
from edgepkd.video.gop import Gop
from tests.clips import encode_clip, moving_scene
from tests.disks import largest_file
from tests.pipeline.writing_vectors import (
    CAMERA,
    drained,
    index,
    load,
    stopped_after,
    written,
)


@pytest.mark.parametrize("there", [False, True])
def test_ctrl_c_leaves_nothing_of_a_file(tmp_path: Path, clip: Path, there: bool) -> None:
    out = tmp_path / "a" / "out"
    if there:
        out.mkdir(parents=True)
    summary = stopped_after(vectors(VectorsConfig(clip, out)), VectorsWritten,
                            KeyboardInterrupt())
    assert (summary.ended, summary.num_files) == ("interrupted", 0)
    assert sorted(path.name for path in tmp_path.rglob("*")) == (["a", "out"] if there else [])


def test_whoever_stops_taking_events_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    events = vectors(VectorsConfig(clip, tmp_path / "out"))
    while not isinstance(next(events), VectorsWritten):
        pass
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."]
    events.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def camera(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a camera that sends a while and then stops."""
    shown = encode_clip(tmp_path_factory.mktemp("camera") / "shown.avi", moving_scene(600))
    monkeypatch.setattr(video_source, "open_camera", lambda *_, **__: av.open(str(shown)))
    return CAMERA


def test_a_camera_keeps_what_is_whole(tmp_path: Path, camera: str) -> None:
    out = tmp_path / "out"
    events = vectors(VectorsConfig(camera, out))
    seen = []
    for event in events:
        if isinstance(event, VectorsWritten):
            seen.append(event.path.name)
            assert event.path.is_file(), "a file has its name at once"
            assert [row["file"] for row in index(out)] == seen
        if len(seen) == 2:
            break
    summary = events.throw(KeyboardInterrupt())
    assert isinstance(summary, VectorsSummary)
    assert (summary.ended, summary.num_files, summary.num_frames) == ("interrupted", 2, 24)
    assert sorted(os.listdir(out)) == [*seen, "index.csv"]
    assert load(out / seen[1])["motion"].shape == (12, 8, 12, 2)


@pytest.mark.slow
def test_a_camera_that_stops_sending_is_an_error_that_costs_no_file(
    tmp_path: Path, camera: str
) -> None:
    events, error = drained(vectors(VectorsConfig(camera, tmp_path / "out")))
    assert isinstance(error, SourceError)
    assert "ended the stream after 600 packets" in str(error)
    assert isinstance(events[-1], VectorsSummary)
    assert events[-1].ended == "source failed"
    # Its last GOP might have gone on.
    assert events[-1].num_files == len(index(tmp_path / "out")) == 49


def test_a_bound_ends_a_camera(tmp_path: Path, camera: str) -> None:
    assert written(camera, tmp_path / "out", gops=2).ended == "complete"
    assert sorted(os.listdir(tmp_path / "out")) == [
        "gop-000000.npz", "gop-000001.npz", "index.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("plot", [None, "png", "video"])
@pytest.mark.parametrize("room", [0, 3_000, 40_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, clip: Path, room: int, plot: Any
) -> None:
    with largest_file(room):
        events, error = drained(vectors(VectorsConfig(clip, tmp_path / "out", plot=plot)))
    assert isinstance(error, StorageError)
    assert re.search(r"out(/motion.mp4)? cannot be written: File too large", str(error))
    assert isinstance(events[-1], VectorsSummary)
    assert (events[-1].ended, events[-1].num_files) == ("error", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_picture_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    for content in (b"", b"\0" * 999, clip.read_bytes()[:300]):
        (tmp_path / "bad.mp4").write_bytes(content)
        events, error = drained(vectors(VectorsConfig(tmp_path / "bad.mp4", tmp_path / "x" / "y")))
        assert isinstance(error, SourceError)
        assert isinstance(events[-1], VectorsSummary)
        assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_an_error_late_in_a_file_leaves_nothing(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Gop.residual

    def fails(gop: Gop, t: int) -> NDArray[np.int16]:
        if gop.index == 2:
            raise DecodeError("it decodes no further")
        return real(gop, t)

    monkeypatch.setattr(Gop, "residual", fails)
    _, error = drained(vectors(VectorsConfig(clip, tmp_path / "out")))
    assert isinstance(error, DecodeError)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_tail_is_a_warning(tmp_path: Path) -> None:
    whole = encode_clip(tmp_path / "whole.avi", moving_scene(60))
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    summary = written(tmp_path / "cut.avi", tmp_path / "out")
    assert (summary.ended, summary.num_warnings) == ("complete", 1)
    assert "cut off" in summary.warnings[0] or "ends" in summary.warnings[0]
    assert 2 <= summary.num_files == len(index(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crash11_490.h264", "exc_17009.ts", "exc_21649.avi",
                                  "heap-overflow-write.mp4", "huge-picture-12kB.avi"])
def test_hostile_videos_are_written_or_refused(
    tmp_path: Path, shared_cases: Path, name: str
) -> None:
    events, error = drained(vectors(VectorsConfig(shared_cases / "hostile" / name,
                                                  tmp_path / "out")))
    assert isinstance(events[-1], VectorsSummary)
    assert (tmp_path / "out").exists() == (error is None)
    assert error is None or isinstance(error, SourceError)
    for path in (tmp_path / "out").glob("*.npz"):
        got = load(path)
        assert len(got["motion"]) == len(got["residual"]) == len(got["times_s"])
        assert (np.diff(got["times_s"]) >= 0).all()


@pytest.mark.parametrize(("settings", "message"), [
    ({"per": "second"}, "per is 'second'; allowed: gop, clip"),
    ({"what": ("motion", "sound")}, "what is 'motion,sound'"), ({"what": ()}, "what is ''"),
    ({"gops": 0}, "gops is 0"), ({"clips": 1}, "--clips goes with --per clip"),
    ({"gops": 1, "per": "clip"}, "--gops goes with --per gop"), ({"plot": "gif"}, "plot is 'gif'"),
    ({"gop_frames": 1}, "gop_frames is 1"), ({"per": "clip", "clip_frames": 0}, "clip_frames is 0"),
    ({"plot": "video", "what": ("iframe",)}, "draws motion"), ({"fps": 0}, "fps is 0"),
    ({"route": "air"}, "route is 'air'"),
])
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VectorsConfig("a.mp4", Path("out"), **settings)


def test_a_route_that_a_file_cannot_take(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "a.mkv", moving_scene(6), codec="ffv1")
    with pytest.raises(ConfigError, match="cannot take it"):
        written(source, tmp_path / "out", route="native")
    assert os.listdir(tmp_path) == ["a.mkv"]
