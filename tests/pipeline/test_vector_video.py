"""The source's pictures with arrows on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepkd.errors import (
    UsageError,
)
from edgepkd.pipeline.vectors import (
    VectorsConfig,
    vectors,
)
from tests.clips import encode_clip, translating_texture
from tests.pipeline.writing_vectors import (
    CAMERA,
    written,
)


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _yellow(rgb: NDArray[Any]) -> float:
    """Share of a picture that arrows cover."""
    return float(((rgb[..., 0] > 190) & (rgb[..., 1] > 160) & (rgb[..., 2] < 120)).mean())


@pytest.mark.slow
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
