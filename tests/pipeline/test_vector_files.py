"""The files of one source, and their index."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgepkd.pipeline.run import SourceWarning
from edgepkd.pipeline.vectors import (
    VectorsConfig,
    VectorsWritten,
    vectors,
)
from edgepkd.video.gop import Gop
from tests.clips import encode_clip, moving_scene
from tests.pipeline.writing_vectors import (
    drained,
    index,
    load,
    written,
)


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


def test_clips_may_overlap(tmp_path: Path, clip: Path) -> None:
    written(clip, tmp_path / "out", per="clip", clip_frames=24, stride_frames=12)
    files = [load(path) for path in sorted((tmp_path / "out").glob("*.npz"))]
    assert [file["gop_index"].tolist() for file in files] == [[0, 1], [1, 2]]
    np.testing.assert_array_equal(files[0]["residual"][12:], files[1]["residual"][:12])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
