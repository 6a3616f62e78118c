"""The verb `vectors`: true numbers, only what was asked, whole folders or none."""

from __future__ import annotations

import csv
import gc
import os
import re
import tracemalloc
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgepkd import _optional
from edgepkd.errors import (
    ConfigError,
    DecodeError,
    MissingExtraError,
    SourceError,
    StorageError,
    UsageError,
)
from edgepkd.pipeline.run import SourceFailed, SourcesSkipped, SourceWarning
from edgepkd.pipeline.vector_arrays import KEYS
from edgepkd.pipeline.vectors import (
    FolderWritten,
    VectorsConfig,
    VectorsEvent,
    VectorsSummary,
    VectorsWritten,
    vectors,
)
from edgepkd.video import source as video_source
from edgepkd.video.clips import ClipReader
from edgepkd.video.decoder import DecodeCounters
from edgepkd.video.gop import Gop
from tests.clips import encode_clip, moving_scene, translating_texture
from tests.disks import largest_file
from tests.video.reading import gops_of, motion_vectors

ROOT = Path(__file__).resolve().parents[2]
CAMERA = "rtsp://camera/x"
Arrays = dict[str, NDArray[Any]]


def written(source: object, out: Path, **settings: Any) -> VectorsSummary:
    """The summary of a run that ends well."""
    *_, summary = vectors(VectorsConfig(source, out, **settings))  # type: ignore[arg-type]
    assert isinstance(summary, VectorsSummary)
    return summary


def load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def drained(events: Iterator[VectorsEvent]) -> tuple[list[VectorsEvent], BaseException | None]:
    """All events, and the error at the end."""
    found = []
    try:
        for event in events:
            found.append(event)
    except BaseException as error:
        return found, error
    return found, None


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three GOPs, the last one short: 12, 12 and 6 frames."""
    path = tmp_path_factory.mktemp("clips") / "right.mp4"
    return encode_clip(path, translating_texture(30, (160, 96), (2, -1)))


# -- the numbers --------------------------------------------------------------------------------


def test_arrays_are_what_the_gops_give(tmp_path: Path, clip: Path) -> None:
    summary = written(clip, tmp_path / "out")
    assert (summary.ended, summary.num_files, summary.num_frames) == ("complete", 3, 30)
    names = [f"gop-{number:06d}.npz" for number in range(3)]
    assert sorted(os.listdir(tmp_path / "out")) == [*names, "index.csv"]
    start_s = 0.0
    for number, gop in enumerate(gops_of(clip)):
        got = load(tmp_path / "out" / names[number])
        assert tuple(got) == KEYS
        frames = range(gop.num_frames)
        np.testing.assert_array_equal(got["motion"], [gop.motion(t) for t in frames])
        np.testing.assert_array_equal(got["residual"], [gop.residual(t) for t in frames])
        np.testing.assert_array_equal(got["iframe"], [gop.iframe()])
        assert got["times_s"] == pytest.approx([start_s + t / 25 for t in frames])
        assert (str(got["source"]), str(got["route"])) == (str(clip), "native")
        assert (got["gop_index"].tolist(), set(got["iframe_index"].tolist())) == ([number], {0})
        assert (got["width_px"], got["height_px"], got["motion_unit_px"]) == (160, 96, 0.25)
        assert [got[name].dtype for name in ("motion", "residual", "iframe", "times_s")] == [
            np.int16, np.int16, np.uint8, np.float64]
        start_s += gop.num_frames / 25
    # It moves 2 px right and 1 px up a frame; edges, where there is nothing to match, aside.
    assert np.median(load(tmp_path / "out" / names[0])["motion"][11], axis=(0, 1)).tolist() == [
        11 * 2 * 4, 11 * -1 * 4]


def test_the_index_lists_files_times_and_shapes(tmp_path: Path, clip: Path) -> None:
    written(clip, tmp_path / "out")
    rows = index(tmp_path / "out")
    assert [row["file"] for row in rows] == [f"gop-{number:06d}.npz" for number in range(3)]
    assert [(float(row["start_s"]), float(row["end_s"])) for row in rows] == [
        (0, 0.48), (0.48, 0.96), (0.96, 1.2)]
    assert rows[2] == {
        "file": "gop-000002.npz", "start_s": "0.96", "end_s": "1.2", "frames": "6", "gops": "1",
        "route": "native", "motion": "6x12x20x2", "residual": "6x96x160x3", "iframe": "1x96x160x3",
        "source": str(clip)}


@pytest.mark.parametrize("name", [
    "clips/v_Diving_g01_c01.avi", "clips/filetype_h263.3gp", "clips/ucf11_v_biking_01_01.mpg",
    "clips/imageio_realshort.mp4", "actions/run/daria_run.avi"])
def test_the_first_p_frame_has_the_block_vectors_that_pyav_exports(
    tmp_path: Path, shared_data: Path, name: str
) -> None:
    """Within one frame of the I-frame nothing is accumulated yet."""
    source = shared_data / name
    written(source, tmp_path / "out", what=("motion",), gops=1)
    field = load(tmp_path / "out" / "gop-000000.npz")["motion"][1]
    assert (load(tmp_path / "out" / "gop-000000.npz")["motion"][0] == 0).all()
    with av.open(str(source)) as container:
        container.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
        frames = container.decode(video=0)
        assert motion_vectors(next(frames)).size == 0
        blocks = motion_vectors(next(frames)).copy()
    moved = blocks[(blocks["motion_x"] != 0) | (blocks["motion_y"] != 0)]
    assert len(moved) >= 3
    expected = np.zeros_like(field)
    for block in blocks:
        left, top = block["dst_x"] - block["w"] // 2, block["dst_y"] - block["h"] // 2
        cells = np.s_[top // 8 : (top + block["h"]) // 8, left // 8 : (left + block["w"]) // 8]
        # PyAV: the block comes from dst + motion / scale. Here: it has moved by A from there.
        expected[cells] = -4 * np.array([block["motion_x"], block["motion_y"]]) \
            // block["motion_scale"]
    np.testing.assert_array_equal(field, expected)


def test_clips_hold_several_gops(tmp_path: Path, clip: Path) -> None:
    written(clip, tmp_path / "gops")
    summary = written(clip, tmp_path / "clips", per="clip", clip_frames=24)
    assert summary.num_files == 2
    gops = [load(tmp_path / "gops" / f"gop-{number:06d}.npz") for number in range(3)]
    first = load(tmp_path / "clips" / "clip-000000.npz")
    for name in ("motion", "residual", "iframe", "times_s", "gop_index"):
        np.testing.assert_array_equal(first[name], np.concatenate([g[name] for g in gops[:2]]))
    assert first["iframe_index"].tolist() == [0] * 12 + [1] * 12
    second = load(tmp_path / "clips" / "clip-000001.npz")
    assert (second["gop_index"].tolist(), len(second["motion"])) == ([2], 6)
    assert [row["gops"] for row in index(tmp_path / "clips")] == ["2", "1"]


def test_clips_may_overlap(tmp_path: Path, clip: Path) -> None:
    written(clip, tmp_path / "out", per="clip", clip_frames=24, stride_frames=12)
    files = [load(path) for path in sorted((tmp_path / "out").glob("*.npz"))]
    assert [file["gop_index"].tolist() for file in files] == [[0, 1], [1, 2]]
    np.testing.assert_array_equal(files[0]["residual"][12:], files[1]["residual"][:12])


def test_another_size_within_a_clip_begins_a_file(tmp_path: Path) -> None:
    parts = [encode_clip(tmp_path / f"{width}.264", moving_scene(12, (width, 64)), gop=6,
                         codec="libx264", options={"bf": "0"}).read_bytes() for width in (96, 128)]
    (tmp_path / "joined.264").write_bytes(b"".join(parts))
    for what in (("motion",), ("motion", "residual", "iframe")):
        out = tmp_path / f"out{len(what)}"
        written(tmp_path / "joined.264", out, per="clip", clip_frames=100, what=what)
        assert [row["motion"] for row in index(out)] == ["12x8x12x2", "12x8x16x2"]


def test_a_stream_that_leaves_native_says_so_in_each_file(
    tmp_path: Path, shared_cases: Path
) -> None:
    source = shared_cases / "hostile" / "joined.h264"
    written(source, tmp_path / "native")
    written(source, tmp_path / "normalize", route="normalize")
    assert {row["route"] for row in index(tmp_path / "native")} == {"native"}
    assert {row["route"] for row in index(tmp_path / "normalize")} == {"normalize"}
    one = load(tmp_path / "normalize" / "gop-000000.npz")
    assert (int(one["motion_width_px"]), int(one["motion_height_px"])) == (340, 256)


def test_b_frames_that_begin_late_change_the_route_of_later_files(tmp_path: Path) -> None:
    plain = encode_clip(tmp_path / "a", moving_scene(400), codec="libx264", gop=25,
                        options={"bf": "0", "refs": "1"}, container_format="mpegts")
    later = encode_clip(tmp_path / "b", moving_scene(50, seed=1), codec="libx264", gop=25,
                        max_b_frames=2, options={"bf": "2", "b-adapt": "0"},
                        pts=range(400, 450), container_format="mpegts")
    (tmp_path / "late.ts").write_bytes(plain.read_bytes() + later.read_bytes())
    events, error = drained(vectors(VectorsConfig(tmp_path / "late.ts", tmp_path / "out",
                                                  per="clip")))
    assert error is None
    assert any(isinstance(event, SourceWarning) for event in events)
    routes = [row["route"] for row in index(tmp_path / "out")]
    assert routes == sorted(routes, key=("native", "normalize").index)
    assert set(routes) == {"native", "normalize"}


# -- what is not asked for ----------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **settings: Any) -> DecodeCounters:
    readers: list[ClipReader] = []

    class Kept(ClipReader):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            readers.append(self)

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Kept)
    written(*arguments, **settings)
    (reader,) = readers
    return reader.counters


@pytest.mark.parametrize(("what", "fields", "residuals", "pictures", "decoded"), [
    (("motion",), 30, 0, 0, 30), (("iframe",), 0, 0, 3, 3), (("residual",), 0, 30, 30, 30),
    (("iframe", "motion"), 30, 0, 3, 30), (("motion", "residual", "iframe"), 30, 30, 30, 30),
])
def test_only_what_is_asked_for_is_decoded(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, what: tuple[str, ...],
    fields: int, residuals: int, pictures: int, decoded: int,
) -> None:
    counts = counted(monkeypatch, clip, tmp_path / "out", what=what)
    assert (counts.motion_fields, counts.residuals) == (fields, residuals)
    assert (counts.frames_rgb, counts.packets_decoded) == (pictures, decoded)
    for path in (tmp_path / "out").glob("*.npz"):
        assert set(load(path)) & {"motion", "residual", "iframe"} == set(what)


def test_a_part_of_the_arrays_has_the_values_of_all(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "long.mp4", moving_scene(40), gop=40)
    written(source, tmp_path / "all")
    for kind in ("motion", "residual", "iframe"):
        written(source, tmp_path / kind, what=(kind,))
        for path in sorted((tmp_path / kind).glob("*.npz")):
            np.testing.assert_array_equal(load(path)[kind],
                                          load(tmp_path / "all" / path.name)[kind])
    assert len(index(tmp_path / "all")) == 4, "long GOPs are cut at 12 frames"


# -- whole or absent ----------------------------------------------------------------------------


def stopped_after(
    events: Generator[VectorsEvent, None, None], kind: type, stop: BaseException
) -> VectorsSummary:
    """The summary of a run that `stop` ends when its first event of `kind` was taken."""
    while not isinstance(next(events), kind):
        pass
    summary = events.throw(stop)
    assert isinstance(summary, VectorsSummary)
    with pytest.raises(type(stop)):
        next(events)
    return summary


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


# -- several sources ----------------------------------------------------------------------------


def test_each_of_several_sources_has_a_folder(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clips"
    for name in ("a/walk.mp4", "b/walk.mp4", "b/Walk.mp4", "run.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no video either")
    events, error = drained(vectors(VectorsConfig(str(folder), tmp_path / "out", gops=1)))
    assert error is None
    assert any(isinstance(event, SourcesSkipped) for event in events)
    (failed,) = [event for event in events if isinstance(event, SourceFailed)]
    assert failed.source.endswith("bad.mp4")
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 4
    assert "run" in names
    assert sum(re.fullmatch("[Ww]alk-[0-9a-f]+", name) is not None for name in names) == 3, (
        "names that a disk may hold for the same are told apart")
    sources = {index(tmp_path / "out" / name)[0]["source"] for name in names}
    assert len(sources) == 4
    assert {event.folder.name for event in events if isinstance(event, FolderWritten)} == set(names)
    assert isinstance(events[-1], VectorsSummary)
    assert (events[-1].ended, events[-1].num_failed) == ("source failed", 1)


def test_what_is_named_twice_is_written_twice(tmp_path: Path, clip: Path) -> None:
    written([clip, clip], tmp_path / "out", gops=1)
    assert len(os.listdir(tmp_path / "out")) == 2


def test_folders_that_are_done_stay_when_the_next_is_stopped(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    events = vectors(VectorsConfig([clip, tmp_path / "other.mp4"], tmp_path / "out"))
    summary = stopped_after(events, FolderWritten, KeyboardInterrupt())
    assert (summary.ended, summary.num_files) == ("interrupted", 3)
    assert os.listdir(tmp_path / "out") == ["right"]


# -- where it may be written --------------------------------------------------------------------


def test_only_an_earlier_folder_is_replaced_and_only_with_force(
    tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "out"
    written(clip, out, gops=1)
    with pytest.raises(UsageError, match=r"is there already; it is not overwritten.*--force"):
        written(clip, out)
    written(clip, out, force=True)
    assert len(index(out)) == 3
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(UsageError, match="is there already and holds other things"):
            written(clip, mine, force=force)
    assert os.listdir(mine) == ["thesis.txt"]
    assert sorted(os.listdir(tmp_path)) == ["mine", "out"]


def test_an_older_folder_survives_a_failure(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out"
    written(clip, out, gops=1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with largest_file(9_000), pytest.raises(StorageError):
        written(clip, out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


def test_places_that_are_refused(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    written(clip, out, plot="video", gops=1)
    (tmp_path / "file").write_text("x")
    (tmp_path / "x.edgepkd").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place, message in (
        (tmp_path / "file", "no folder"), (tmp_path / "file" / "x", "can be written to"),
        (tmp_path / "x.edgepkd" / "y", "lies in the bundle"), (Path(), "the folder you are in"),
    ):
        with pytest.raises(UsageError, match=message):
            written(clip, place, force=True)
    with pytest.raises(UsageError, match=r"holds .*motion.mp4, which is read"):
        written(out / "motion.mp4", out, force=True)
    assert (out / "motion.mp4").is_file()


def test_another_process_that_was_first_keeps_the_name(tmp_path: Path, clip: Path) -> None:
    events = vectors(VectorsConfig(clip, tmp_path / "out"))
    while not isinstance(next(events), VectorsWritten):
        pass
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").write_text("dear")
    _, error = drained(events)
    assert isinstance(error, StorageError)
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["theirs"]


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


# -- memory -------------------------------------------------------------------------------------


def test_one_gop_is_in_memory_at_a_time(tmp_path: Path) -> None:
    peaks, most = {}, 0
    for num_frames in (48, 240):
        source = encode_clip(tmp_path / f"{num_frames}.avi", moving_scene(num_frames, (160, 128)))
        gc.collect()
        tracemalloc.start()
        for event in vectors(VectorsConfig(source, tmp_path / f"out{num_frames}")):
            if isinstance(event, VectorsWritten):
                alive = [one for one in gc.get_objects() if type(one) is Gop]
                most = max(most, sum(one._run is not None for one in alive))
        peaks[num_frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most <= 2, "the one that is written, and the one after it"
    frame_bytes = 160 * 128 * 3 * 2
    assert peaks[240] < peaks[48] + 4 * frame_bytes, "not 192 frames more"


# -- drawings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [("motion", "residual", "iframe"), ("motion",), ("residual",),
                                  ("iframe",), ("residual", "iframe")])
def test_a_figure_beside_each_file(tmp_path: Path, clip: Path, what: Any) -> None:
    written(clip, tmp_path / "out", plot="png", gops=2, what=what)
    assert sorted(os.listdir(tmp_path / "out")) == [
        "gop-000000.npz", "gop-000000.png", "gop-000001.npz", "gop-000001.png", "index.csv"]
    with Image.open(tmp_path / "out" / "gop-000000.png") as figure:
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    panels = 2 if {"motion", "residual"} <= set(what) else 1
    assert pixels.shape[1] == 600 * panels
    assert (np.ptp(pixels, axis=2) > 60).sum() > 500 or what == ("iframe",), "colours are drawn"


def test_figures_need_matplotlib_and_say_so_before_any_work(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_optional.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"--plot png needs .*edgepkd\[report\]"):
        next(vectors(VectorsConfig(clip, tmp_path / "out", plot="png")))
    assert list(tmp_path.iterdir()) == []


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _yellow(rgb: NDArray[Any]) -> float:
    """Share of a picture that arrows cover."""
    return float(((rgb[..., 0] > 190) & (rgb[..., 1] > 160) & (rgb[..., 2] < 120)).mean())


@pytest.mark.parametrize("per", ["gop", "clip"])
def test_a_video_with_arrows_keeps_pictures_and_times(tmp_path: Path, per: Any) -> None:
    pts = [*range(20), *range(30, 40)]
    source = encode_clip(tmp_path / "a.mkv", translating_texture(30, (320, 192), (2, 0)),
                         codec="libx264", options={"bf": "0"}, pts=pts)
    written(source, tmp_path / "out", plot="video", per=per)
    assert not list((tmp_path / "out").glob(".*"))
    got, plain = _frames(tmp_path / "out" / "motion.mp4"), _frames(source)
    assert [frame.time for frame in got] == pytest.approx([p / 25 for p in pts], abs=2e-3)
    difference = np.abs(got[6].to_ndarray(format="rgb24").astype(int)
                        - plain[6].to_ndarray(format="rgb24"))
    picture = difference[: 192 - 24]
    assert np.median(picture) < 16, "the picture is still there"
    rgb = got[6].to_ndarray(format="rgb24").astype(int)[: 192 - 24]
    assert _yellow(rgb) > 0.02
    still = got[12].to_ndarray(format="rgb24").astype(int)[: 192 - 24]
    assert _yellow(still) < 0.001, "an I-frame has not moved: no arrow"


def test_a_bound_cuts_the_video_too(tmp_path: Path, clip: Path) -> None:
    written(clip, tmp_path / "out", plot="video", gops=1)
    assert len(_frames(tmp_path / "out" / "motion.mp4")) == 12


@pytest.mark.parametrize("source", ["-", CAMERA])
def test_what_cannot_be_read_twice_has_no_video(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match="--plot video with"):
        next(vectors(VectorsConfig(source, tmp_path / "out", plot="video")))


# -- the page -----------------------------------------------------------------------------------


def test_the_page_describes_every_array() -> None:
    page = (ROOT / "docs" / "vectors.md").read_text("utf-8")
    for key in KEYS:
        assert f"| `{key}` |" in page
