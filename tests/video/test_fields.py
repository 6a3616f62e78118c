"""Working grids, and fields and residuals of real encoders' streams."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.video.fields import working_grid
from tests.clips import encode_clip, moving_scene, translating_texture
from tests.video.reading import CoviarPort, gops_of, packets_of, plain_frames

# -- grids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "grid_px", "shape", "pictures"), [
    ((340, 256), 8, (32, 43), (340, 256)),
    ((338, 250), 4, (63, 85), (338, 250)),
    ((338, 250), 1, (250, 338), (338, 250)),
    ((1280, 720), 8, (256, 455), (455, 256)),
    ((1080, 1920), 8, (455, 256), (256, 455)),
])
def test_grid_shapes(size: tuple[int, int], grid_px: int, shape: tuple[int, int],
                     pictures: tuple[int, int]) -> None:
    grid = working_grid(*size, grid_px=grid_px, max_short_side_px=288)
    assert (grid.rows, grid.columns) == shape
    assert (grid.width_px, grid.height_px) == pictures
    assert grid.cell_x_starts[-1] == grid.columns
    assert grid.point_y_starts[-1] == grid.height_px
    assert (np.diff(grid.cell_x_starts) >= 0).all()


# -- known displacement -----------------------------------------------------------------------


def _share_right(path: Path, step: tuple[float, float], *, spec: DecodeSpec,
                 margin: int, **changes: object) -> float:
    """Share of field points within half a pixel of the true displacement, border left out."""
    shares = []
    for gop in gops_of(path, spec, **changes):
        for t in range(1, gop.num_frames):
            field = gop.motion(t)[margin:-margin, margin:-margin] / 4.0
            error = np.abs(field - np.multiply(step, t)).max(-1)
            shares.append(np.mean(error <= 0.5))
    return float(np.mean(shares))


X264 = {"bf": "0", "refs": "1", "subme": "7", "preset": "medium"}


@pytest.mark.slow
@pytest.mark.parametrize("grid_px", [1, 8])
@pytest.mark.parametrize(("codec", "step", "options", "least"), [
    ("mpeg4", (3, -2), {}, 0.99),
    ("mpeg4", (1.5, 0.5), {}, 0.99),
    ("mpeg4", (0.25, -0.75), {}, 0.90),  # a half-pixel codec alternates
    ("mpeg2video", (3, -2), {}, 0.99),
    ("libx264", (3, -2), X264, 0.99),
    ("libx264", (1.5, 0.5), X264, 0.99),
    ("libx264", (0.25, -0.75), X264, 0.85),
    ("libx264", (-9, 0), X264, 0.95),
])
def test_a_translating_texture_gives_its_displacement(
    tmp_path: Path, codec: str, step: tuple[float, float], options: dict[str, str], least: float,
    grid_px: int,
) -> None:
    frames = translating_texture(13, (256, 192), step)
    path = encode_clip(tmp_path / "clip.mkv", frames, codec=codec, options=options,
                       quality=2 if codec != "libx264" else 12)
    spec = DecodeSpec(grid_px=grid_px)  # type: ignore[arg-type]
    # What came in from outside since the anchor has no true vector: up to 110 px at the border.
    margin = (12 * 9 if step[0] == -9 else 48) // grid_px
    margin = min(margin, 72 // grid_px)
    assert _share_right(path, step, spec=spec, margin=margin) >= least


def test_several_references_are_found_by_looking(tmp_path: Path) -> None:
    """At 1.5 px a frame the frame before last is a whole-pixel match, and x264 takes it."""
    step = (1.5, 0.5)
    frames = translating_texture(13, (256, 192), step)
    path = encode_clip(tmp_path / "clip.mkv", frames, codec="libx264", quality=12,
                       options={"bf": "0", "refs": "4", "preset": "medium"})
    params, _ = packets_of(path)
    assert params.num_ref_frames == 4
    spec = DecodeSpec()
    assert _share_right(path, step, spec=spec, margin=6) >= 0.98
    # The test would notice: taking the previous frame for every block is wrong here.
    assert _share_right(path, step, spec=spec, margin=6, num_ref_frames=1) < 0.9


def test_a_large_source_keeps_full_resolution_quarter_pixels(tmp_path: Path) -> None:
    step = (6, -3)
    frames = translating_texture(6, (640, 480), step)
    path = encode_clip(tmp_path / "clip.avi", frames)
    (gop,) = gops_of(path)
    field = gop.motion(5)
    assert field.shape == (256, 341, 2)
    np.testing.assert_array_equal(np.median(field.reshape(-1, 2), axis=0), (4 * 30, -4 * 15))
    residual = gop.residual(5)
    zero = gop.iframe().astype(int)
    now = zero + 0
    assert residual.shape == (256, 341, 3) == now.shape
    assert np.abs(residual[32:-32, 32:-32]).mean() < 8


# -- the identity -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("grid_px", [1, 4, 8])
@pytest.mark.parametrize(("codec", "size"), [("mpeg4", (338, 250)), ("libx264", (176, 144))])
def test_warped_anchor_plus_residual_is_the_decoded_frame(
    tmp_path: Path, codec: str, size: tuple[int, int], grid_px: int
) -> None:
    """Exact in RGB, for every pixel: frame == anchor looked up at p - A(p) + residual."""
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(8, size), codec=codec,
                       options={"bf": "0"} if codec == "libx264" else {},
                       quality=4 if codec == "mpeg4" else 24)
    (gop,) = gops_of(path, DecodeSpec(grid_px=grid_px))  # type: ignore[arg-type]
    decoded = [f.to_ndarray(format="rgb24") for f in plain_frames(path)]
    np.testing.assert_array_equal(gop.iframe(), decoded[0])
    height, width = decoded[0].shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    moved = False
    for t in (1, 4, 7):
        field = gop.motion(t)[y // grid_px, x // grid_px].astype(int)
        shift = (field + 2) >> 2
        warped = decoded[0][np.clip(y - shift[..., 1], 0, height - 1),
                            np.clip(x - shift[..., 0], 0, width - 1)]
        np.testing.assert_array_equal(warped + gop.residual(t), decoded[t])
        moved = moved or bool(field.any())
    assert moved


# -- CoViAR's arithmetic ----------------------------------------------------------------------

_PORT_PIXELS = 6_500_000  # a clip's share of slow port work: pixels times frames


_SEVERAL_REFERENCES = {"decord_flipping_a_pancake.mkv"}  # CoViAR's rule is not right there


def _coviar_clips() -> list[str]:
    """MPEG-4 and single-reference H.264 clips that are decoded natively."""
    index = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips" / "index.csv"
    if not index.is_file():
        return []
    rows = list(csv.DictReader(index.open()))
    return [row["path"] for row in rows
            if row["codec"] in ("mpeg4", "h264") and row["decode"] in ("ok", "decode-errors")
            and row["pix_fmt"] in ("yuv420p", "yuvj420p")
            and (row["codec"] == "mpeg4" or int(row["b_frames"] or 0) == 0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", _coviar_clips() or ["absent"])
def test_coviar_mode_equals_the_slow_port(shared_data: Path, name: str) -> None:
    path = shared_data / "clips" / name
    params, _ = packets_of(path)
    if params.codec_name == "h264" and params.num_ref_frames > 1:
        assert name in _SEVERAL_REFERENCES
        return
    spec = DecodeSpec(grid_px=1, arithmetic="coviar", max_short_side_px=5000)
    gop = gops_of(path, spec)[0]
    pixels = params.width_px * params.height_px
    last = min(gop.num_frames - 1, max(1, _PORT_PIXELS // pixels))
    port = CoviarPort(params.width_px, params.height_px)
    anchor = None
    steps = 0
    for frame in plain_frames(path, nonref=True):
        if anchor is None:
            anchor = frame.to_ndarray(format="rgb24")
            if gop.num_frames == 1:
                break
            continue
        port.step(frame)
        steps += 1
        if steps == last or gop._kept[steps:] == [gop._kept[-1]]:
            break
    t = gop._kept[steps]
    np.testing.assert_array_equal(gop.motion(t), port.motion() * 4)
    np.testing.assert_array_equal(gop.iframe(), anchor)
    if steps:
        now = frame.to_ndarray(format="rgb24")
        np.testing.assert_array_equal(gop.residual(t), port.residual(now, anchor))
