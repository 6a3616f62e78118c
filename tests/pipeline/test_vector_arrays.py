"""The arrays of a file: true numbers, and only what was asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.pipeline.vector_arrays import KEYS
from edgepkd.video.clips import ClipReader
from edgepkd.video.decoder import DecodeCounters
from tests.clips import encode_clip, moving_scene
from tests.pipeline.writing_vectors import (
    ROOT,
    index,
    load,
    written,
)
from tests.video.reading import gops_of, motion_vectors


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


def test_another_size_within_a_clip_begins_a_file(tmp_path: Path) -> None:
    parts = [encode_clip(tmp_path / f"{width}.264", moving_scene(12, (width, 64)), gop=6,
                         codec="libx264", options={"bf": "0"}).read_bytes() for width in (96, 128)]
    (tmp_path / "joined.264").write_bytes(b"".join(parts))
    for what in (("motion",), ("motion", "residual", "iframe")):
        out = tmp_path / f"out{len(what)}"
        written(tmp_path / "joined.264", out, per="clip", clip_frames=100, what=what)
        assert [row["motion"] for row in index(out)] == ["12x8x12x2", "12x8x16x2"]


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


def test_the_page_describes_every_array() -> None:
    page = (ROOT / "docs" / "vectors.md").read_text("utf-8")
    for key in KEYS:
        assert f"| `{key}` |" in page
