"""`edgepkd.video.open`: what a user of the package reads videos with."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgepkd.video
from edgepkd.config import ClipSpec, InputSpec
from edgepkd.errors import ConfigError, DecodeError, LimitError, SourceError
from edgepkd.video.clips import ClipReader
from tests.clips import encode_clip, moving_scene
from tests.processes import ROOT


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 frames of MPEG-4 at 25 a second, GOP 12."""
    return encode_clip(tmp_path_factory.mktemp("clip") / "clip.avi", moving_scene(75))


def arrays_of(gop: edgepkd.video.Gop) -> list[Any]:
    return [gop.iframe(), *(gop.motion(t) for t in range(gop.num_frames)),
            *(gop.residual(t) for t in range(gop.num_frames))]


# -- what it gives ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("route", ["native", "normalize"])
def test_every_gop_comes_once_and_with_the_arrays_of_a_clip_reader(clip: Path, route: Any) -> None:
    inputs = {"mv": InputSpec("mv", num_segments=2, resize_px=64, crop_px=64)}
    with ClipReader(clip, clip=ClipSpec(), inputs=inputs, route=route) as reader:  # type: ignore[arg-type]
        expected = [(gop.times_s, arrays_of(gop)) for part in reader for gop in part.gops]
    with edgepkd.video.open(clip, clip_frames=24, route=route) as clips:
        assert clips.choice.route == route
        found = [(gop.times_s, arrays_of(gop)) for part in clips for gop in part.gops]
    with edgepkd.video.open(clip, route=route) as clips:
        alone = [(gop.times_s, arrays_of(gop)) for gop in clips.gops()]
    assert [len(times) for times, _ in expected] == [12] * 6 + [3]
    for got in (found, alone):
        assert [times for times, _ in got] == [times for times, _ in expected]
        for (_, ours), (_, theirs) in zip(got, expected, strict=True):
            assert len(ours) == len(theirs)
            for one, two in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, two)


def test_clips_have_the_length_asked_for_and_their_times(clip: Path) -> None:
    with edgepkd.video.open(clip, clip_frames=30) as clips:
        spans = [(round(c.start_s, 3), round(c.end_s, 3), c.gop_lengths) for c in clips]
    assert spans == [(0, 1.44, (12, 12, 12)), (1.44, 2.88, (12, 12, 12)), (2.88, 3.0, (3,))]


def test_a_path_a_name_and_a_file_are_sources_alike(clip: Path) -> None:
    for source in (clip, str(clip), io.BytesIO(clip.read_bytes())):
        with edgepkd.video.open(source) as clips:
            assert sum(gop.num_frames for gop in clips.gops()) == 75


def test_times_begin_where_the_stream_does(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "late.mkv", moving_scene(24), pts=range(50, 74))
    with edgepkd.video.open(path) as clips:
        first, second = (gop.times_s[0] for gop in clips.gops())
    assert (first, clips.first_time_s) == (pytest.approx(2.0), first)
    assert second == pytest.approx(2.48)
    with edgepkd.video.open(path) as clips:
        (only,) = clips
    assert (only.start_s, only.end_s) == (0, pytest.approx(0.96))


def test_settings_of_decoding_are_taken(clip: Path) -> None:
    spec = edgepkd.video.DecodeSpec(gop_frames=4, grid_px=1, arithmetic="coviar")
    with edgepkd.video.open(clip, decode=spec) as clips:
        gop = next(clips.gops())
        field = gop.motion(3)
    assert (gop.num_frames, field.shape) == (4, (64, 96, 2))
    assert not (field % 4).any()
    with edgepkd.video.open(clip, decode=edgepkd.video.DecodeSpec(pixels=False)) as clips:
        gop = next(clips.gops())
        assert gop.motion(3).any()
        with pytest.raises(ConfigError, match="pixels=False"):
            gop.residual(3)


def test_a_large_video_is_reduced_unless_asked_otherwise(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "large.mp4", moving_scene(3, (640, 320)))
    whole = edgepkd.video.DecodeSpec(max_short_side_px=4320)
    for spec, size in ((None, (256, 512)), (whole, (320, 640))):
        with edgepkd.video.open(path, decode=spec) as clips:
            gop = next(clips.gops())
            assert gop.iframe().shape[:2] == gop.residual(2).shape[:2] == size
            assert gop.source_size_px == (640, 320)


def test_a_reader_without_inputs_makes_no_tensor(clip: Path) -> None:
    with edgepkd.video.open(clip) as clips:
        part = next(iter(clips))
        with pytest.raises(ConfigError, match=r"modality is 'mv'; allowed: none \(the inputs"):
            part.tensor("mv")


# -- what it decodes and holds ----------------------------------------------------------------


def test_nothing_is_decoded_unless_asked_for_and_nothing_twice(clip: Path) -> None:
    with edgepkd.video.open(clip) as clips:
        assert sum(1 for _ in clips.gops()) == 7
        assert clips.counters.packets_decoded == 0
    with edgepkd.video.open(clip) as clips:
        for part in clips:
            for gop in part.gops:
                arrays_of(gop)
        assert clips.counters.packets_decoded == 75


@pytest.mark.slow
@pytest.mark.parametrize("whole_clips", [True, False])
def test_what_was_read_is_let_go(clip: Path, whole_clips: bool) -> None:
    """No array outlives its clip (24 frames), or its GOP (12 frames), by much."""
    held: list[weakref.ref[Any]] = []
    most = 0
    gc.collect()
    gc.disable()  # reference counts alone do it
    try:
        with edgepkd.video.open(clip, clip_frames=24) as clips:
            gops = ((g for part in clips for g in part.gops) if whole_clips else clips.gops())
            for gop in gops:
                held += [weakref.ref(array) for array in arrays_of(gop)]
                most = max(most, sum(ref() is not None for ref in held))
    finally:
        gc.enable()
    a_gop = 1 + 12 + 12
    assert len(held) == 6 * a_gop + 7
    assert a_gop <= most <= (2 if whole_clips else 1) * a_gop + 1


def test_a_gop_whose_clip_is_over_says_so(clip: Path) -> None:
    with edgepkd.video.open(clip, clip_frames=24) as clips:
        first = next(iter(clips)).gops[0]
        assert first.motion(5).any()
    with edgepkd.video.open(clip) as clips:
        gops = list(clips.gops())
    for gop in (gops[0], gops[-1]):
        assert gop.times_s
        with pytest.raises(DecodeError, match=r"GOP \d was released, and its arrays with it"):
            gop.motion(0)


def test_a_video_is_read_once(clip: Path) -> None:
    with edgepkd.video.open(clip) as clips:
        next(clips.gops())
        for again in (clips.gops(), iter(clips)):
            with pytest.raises(SourceError, match="was read already"):
                next(again)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_a_file_is_closed_at_the_end_of_the_block_and_by_a_mistake(clip: Path) -> None:
    def is_open() -> bool:
        return str(clip) in {os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}

    with edgepkd.video.open(clip) as clips:
        next(clips.gops())
        assert is_open()
    assert not is_open()
    with pytest.raises(RuntimeError, match="mine"), edgepkd.video.open(clip):
        raise RuntimeError("mine")
    assert not is_open()


# -- what it refuses --------------------------------------------------------------------------


def test_a_source_that_cannot_be_opened_is_an_error(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(b"\x17 no video " * 500)
    for name, said in {"missing.mp4": "does not exist", "empty.mp4": r"is empty \(0 bytes\)",
                       "noise.mp4": "cannot be opened"}.items():
        with pytest.raises(SourceError, match=said):
            edgepkd.video.open(tmp_path / name)
    with pytest.raises(SourceError, match="type int"):
        edgepkd.video.open(3)  # type: ignore[arg-type]
    with pytest.raises(LimitError, match="96x64"):
        edgepkd.video.open(clip, limits=edgepkd.video.Limits(pixels=1000))


def test_settings_out_of_range_are_refused(clip: Path) -> None:
    with pytest.raises(ConfigError, match="clip_frames is 0"):
        edgepkd.video.open(clip, clip_frames=0)
    with pytest.raises(ConfigError, match="route is 'fast'; allowed: auto, native, normalize"):
        edgepkd.video.open(clip, route="fast")  # type: ignore[arg-type]
    with edgepkd.video.open(clip) as clips:
        gop = next(clips.gops())
        for t in (-1, 12):
            with pytest.raises(ConfigError, match=rf"t is {t}; allowed: 0\.\.11"):
                gop.motion(t)


@pytest.mark.parametrize("whole_clips", [True, False])
@pytest.mark.parametrize("route", ["auto", "normalize"])
def test_a_file_without_one_good_frame_is_an_error(
    tmp_path: Path, whole_clips: bool, route: Any
) -> None:
    """Its index is whole, and so are the sizes of its packets: only the pictures are gone."""
    path = encode_clip(tmp_path / "clip.avi", moving_scene(24))
    data = bytearray(path.read_bytes())
    at = data.find(b"00dc", data.find(b"movi"))
    while 0 <= at < len(data) and data[at : at + 4] == b"00dc":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 8 : at + 8 + size] = bytes(size)
        at += 8 + size + size % 2
    path.write_bytes(data)

    def read() -> None:
        with edgepkd.video.open(path, route=route) as clips:
            gops = (g for part in clips for g in part.gops) if whole_clips else clips.gops()
            for gop in gops:
                gop.iframe()

    with pytest.raises(DecodeError, match=r"opens, but none of its 24 packets decodes"):
        read()


def test_a_file_that_is_cut_off_gives_what_is_there_and_a_warning(
    tmp_path: Path, clip: Path
) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with edgepkd.video.open(cut) as clips:
        frames = sum(gop.num_frames for gop in clips.gops() if gop.iframe().any())
    assert 12 <= frames < 75
    assert "cut off" in clips.warnings[0]


# -- the names of the room --------------------------------------------------------------------


def test_every_public_name_is_there_and_listed() -> None:
    for name in edgepkd.video.__all__:
        assert getattr(edgepkd.video, name).__name__ == name
        assert getattr(edgepkd.video, name).__doc__
        assert name in dir(edgepkd.video)
    assert edgepkd.video.ClipReader is ClipReader
    with pytest.raises(AttributeError, match=r"'edgepkd\.video' has no attribute 'Clipp'"):
        edgepkd.video.Clipp  # noqa: B018
    namespace: dict[str, Any] = {}
    exec("from edgepkd.video import *", namespace)
    assert set(edgepkd.video.__all__) <= set(namespace)


@pytest.mark.slow
def test_importing_the_room_imports_nothing_heavy() -> None:
    code = ("import sys, edgepkd.video; dir(edgepkd.video); "
            "print(sorted({'av', 'numpy', 'numba', 'torch'} & set(sys.modules))); "
            "edgepkd.video.open; print('av' in sys.modules, 'torch' in sys.modules)")
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120,
                          capture_output=True, text=True).stdout
    assert said.split("\n")[:2] == ["[]", "True False"]
