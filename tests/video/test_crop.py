"""H.264 streams that crop at the left or top: what is shown is the uncropped stream's, cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality, Route
from edgepkd.errors import ConfigError
from edgepkd.runtime.annotate import save_annotated
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.gop import Gop
from edgepkd.video.h264 import NO_CROP, Crop
from edgepkd.video.orientation import Orientation
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from edgepkd.video.sampling import Place
from tests.clips import encode_clip, moving_scene, translating_texture, with_display_matrix
from tests.outputs import place
from tests.video.reading import gops_of
from tests.video.sps import with_crop

CODED = (192, 160)
CROPS = [
    Crop(80, 64), Crop(8, 0), Crop(0, 8), Crop(16, 8, 16, 24),  # whole cells
    Crop(2, 0), Crop(0, 2), Crop(34, 6, 4, 10), Crop(62, 66, 62, 50),  # parts of cells
]
MODALITIES: tuple[Modality, ...] = ("mv", "residual", "iframe")


def raw_clip(path: Path, frames: Any, *, refs: int = 1, gop: int = 12) -> Path:
    return encode_clip(path, frames, codec="libx264", gop=gop, quality=20, options={
        "x264-params": f"bframes=0:ref={refs}:repeat-headers=1"})


@pytest.fixture(scope="module", params=[1, 3], ids=["one reference", "three references"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured picture that moves in over the sides which will be cut off."""
    frames = translating_texture(24, CODED, (5.5, 3.25))
    return raw_clip(tmp_path_factory.mktemp("whole") / "whole.264", frames, refs=request.param)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_clip(tmp_path_factory.mktemp("scene") / "scene.264", moving_scene(24, CODED))


def cropped(path: Path, crop: Crop) -> Path:
    return with_crop(path, left=crop.left, top=crop.top, right=crop.right, bottom=crop.bottom)


def reader_of(path: Path, route: Route = "auto", **settings: Any) -> ClipReader:
    inputs = {m: InputSpec(m, 3, resize_px=72, crop_px=64) for m in MODALITIES}
    return ClipReader(str(path), clip=ClipSpec(), inputs=inputs, route=route, **settings)


def first_clip(path: Path, route: Route = "auto", **settings: Any) -> tuple[ClipReader, Clip]:
    reader = reader_of(path, route, **settings)
    return reader, next(iter(reader))


def cut(array: np.ndarray, crop: Crop, size: tuple[int, int] = CODED, cell_px: int = 1
        ) -> np.ndarray:
    """What `crop` leaves of an array with one entry for each cell of the coded picture."""
    right, bottom = size[0] - crop.right, size[1] - crop.bottom
    return array[crop.top // cell_px : -(-bottom // cell_px),
                 crop.left // cell_px : -(-right // cell_px)]


def mean_difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - two).mean())


def assert_cut(gop: Gop, plain: Gop, crop: Crop, *, size: tuple[int, int] = CODED,
               grid_px: int = 8) -> None:
    for t in (0, 1, 7, gop.num_frames - 1):
        np.testing.assert_array_equal(gop.motion(t), cut(plain.motion(t), crop, size, grid_px))
        np.testing.assert_array_equal(gop.residual(t), cut(plain.residual(t), crop, size))
    np.testing.assert_array_equal(gop.iframe(), cut(plain.iframe(), crop, size))
    assert gop.iframe().shape[:2] == (gop.height_px, gop.width_px)
    assert gop.motion(0).shape[:2] == gop.grid_shape


@pytest.mark.slow
@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_native_arrays_are_those_of_the_whole_picture_cut(whole: Path, crop: Crop) -> None:
    _, plain = first_clip(whole)
    reader, clip = first_clip(cropped(whole, crop))
    assert (reader.choice.route, reader.info.crop) == ("native", crop)
    assert (reader.info.width_px, reader.info.height_px) == (
        CODED[0] - crop.left - crop.right, CODED[1] - crop.top - crop.bottom)
    for gop, other in zip(clip.gops, plain.gops, strict=True):
        assert_cut(gop, other, crop)
        assert gop.motion(7).any()


@pytest.mark.slow
@pytest.mark.parametrize("grid_px", [1, 4])
@pytest.mark.parametrize("crop", [CROPS[0], CROPS[6]], ids=str)
def test_other_grids_are_cut_alike(whole: Path, crop: Crop, grid_px: Any) -> None:
    spec = DecodeSpec(grid_px=grid_px)
    _, plain = first_clip(whole, decode=spec)
    _, clip = first_clip(cropped(whole, crop), decode=spec)
    assert_cut(clip.gops[1], plain.gops[1], crop, grid_px=grid_px)


def test_value_images_say_where_the_picture_lies_on_its_cells(whole: Path) -> None:
    """Crops of parts of cells: the first cells are partial, as the last ones are."""
    crop = Crop(34, 6, 4, 10)
    path = cropped(whole, crop)
    _, clip = first_clip(path)
    image = clip.image("mv", Place(0, 7))
    assert image.pixels.shape[:2] == (19, 20)
    assert (image.origin, image.extent) == ((0.25, 0.75), (19.25, 18.0))
    (gop, _) = gops_of(path, crop=crop, width_px=154, height_px=144,
                       orientation=Orientation(1, mirrored=True))
    assert gop.grid_shape == (20, 19)
    # Mirrored, the partial cells at the left are at the right; turned, at the top.
    assert gop.field_margins == (0.75, 0.25, 0.25, 0.5)
    np.testing.assert_array_equal(gop.iframe(), np.rot90(clip.gops[0].iframe()[:, ::-1]))


def test_motion_is_counted_in_pictures_of_the_shown_size(whole: Path) -> None:
    crop = Crop(32, 32, 48, 48)
    _, clip = first_clip(cropped(whole, crop))
    assert clip.gops[0].source_size_px == (112, 80)


@pytest.mark.slow
@pytest.mark.parametrize("crop", [Crop(34, 6, 4, 10), Crop(80, 64), NO_CROP], ids=str)
def test_the_normalised_picture_is_the_window_and_no_more(
    scene: Path, tmp_path: Path, crop: Crop
) -> None:
    """FFmpeg by itself leaves up to 63 more columns at the left."""
    path = cropped(scene, crop)
    _, clip = first_clip(path, "normalize")
    with av.open(str(scene)) as container:
        frames = [cut(f.to_ndarray(format="rgb24"), crop) for f in container.decode(video=0)]
    alone = encode_clip(tmp_path / "alone.mp4", frames, codec="libx264", quality=1, gop=12)
    _, plain = first_clip(alone, "normalize")
    for modality, limit in (("iframe", 3), ("residual", 4)):
        difference = mean_difference(clip.image(modality, Place(1, 5)).pixels,
                                     plain.image(modality, Place(1, 5)).pixels)
        assert difference < limit
    out = tmp_path / "saved.mp4"
    for _ in save_annotated(str(path), [], place(out), fps=25):
        pass
    with av.open(str(out)) as container:
        saved = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(saved) == len(frames)
    for picture, frame in zip(saved, frames, strict=True):
        assert picture.shape == frame.shape
        assert mean_difference(picture, frame) < 6


def test_in_a_container_and_mirrored(scene: Path, tmp_path: Path) -> None:
    """The size in the container is that of before: tools that rewrite only the stream leave it."""
    crop = Crop(34, 6, 4, 10)
    mp4 = tmp_path / "c.mp4"
    with av.open(str(cropped(scene, crop))) as source, av.open(str(mp4), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.width, stream.height = CODED
        packets = (p for p in source.demux(video=0) if p.size)
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, 1 / source.streams.video[0].average_rate
            packet.pts, packet.dts, packet.duration = number, number, 1
            target.mux(packet)
    one = 1 << 16
    path = with_display_matrix(mp4, [-one, 0, 0, 0, one, 0, 0, 0, 1 << 30])
    reader, clip = first_clip(path)
    assert (reader.choice.route, reader.info.crop, reader.info.mirrored) == ("native", crop, True)
    _, plain = first_clip(scene)
    np.testing.assert_array_equal(
        clip.gops[1].iframe(), cut(plain.gops[1].iframe(), crop)[:, ::-1])
    np.testing.assert_array_equal(
        clip.gops[1].residual(5), cut(plain.gops[1].residual(5), crop)[:, ::-1])
    field = cut(plain.gops[1].motion(5), crop, cell_px=8)[:, ::-1] * np.array([-1, 1], np.int16)
    np.testing.assert_array_equal(clip.gops[1].motion(5), field)


def test_right_and_bottom_are_left_to_ffmpeg(scene: Path) -> None:
    """The common case (1080 of 1088 lines): nothing is known or done here."""
    crop = Crop(0, 0, 22, 8)
    reader, clip = first_clip(cropped(scene, crop))
    assert reader.info.crop == NO_CROP
    _, plain = first_clip(scene)
    np.testing.assert_array_equal(clip.gops[1].iframe(), cut(plain.gops[1].iframe(), crop))
    gop = clip.gops[0]
    assert (gop._grid.source_width_px, gop._grid.source_height_px) == (170, 152)


def test_a_large_cropped_source_is_normalised(tmp_path: Path) -> None:
    crop = Crop(16, 16)
    frames = moving_scene(14, (352, 320))
    path = cropped(raw_clip(tmp_path / "large.264", frames), crop)
    info = probe(str(path))
    choice = choose_route(info)
    assert choice.route == "normalize"
    assert "cropped by 16 px left and 16 px top" in choice.reason
    _, clip = first_clip(path)
    assert clip.image("iframe", Place(0, 0)).pixels.shape == (256, 340, 3)
    with pytest.raises(ConfigError, match="cropped by 16 px left"):
        first_clip(path, "native")
    with pytest.raises(ConfigError, match="allowed together: up to 288"):
        gops_of(path, crop=crop, width_px=336, height_px=304)
    # Where it is worked on at its own size it is native, and right.
    spec = DecodeSpec(max_short_side_px=320)
    _, clip = first_clip(path, decode=spec)
    _, plain = first_clip(tmp_path / "large.264", decode=spec)
    assert_cut(clip.gops[0], plain.gops[0], crop, size=(352, 320))


def test_parameter_sets_that_disagree_are_normalised(scene: Path, tmp_path: Path) -> None:
    """The same size out of two places: which set holds is not known from the sets alone."""
    left = with_crop(scene, left=16, top=0, name="left.264").read_bytes()
    right = with_crop(scene, left=0, top=0, right=16, name="right.264").read_bytes()
    path = tmp_path / "two.264"
    path.write_bytes(right[: right.index(b"\x00\x00\x00\x01\x68")] + left)
    info = probe(str(path))
    assert info.crop is None
    choice = choose_route(info)
    assert (choice.route, choice.native_possible) == ("normalize", False)
    assert "which part" in choice.reason
    _, clip = first_clip(path)
    with av.open(str(scene)) as container:
        frame = next(container.decode(video=0)).reformat(format="rgb24").to_ndarray()[:, 16:]
    corner = clip.image("iframe", Place(0, 0)).pixels[:40, :40].mean()
    assert corner == pytest.approx(frame[:25, :20].mean(), abs=3)


def test_parameter_sets_may_come_late(scene: Path, tmp_path: Path) -> None:
    """A stream that was joined in the middle: pictures without parameter sets come first."""
    data = cropped(scene, Crop(34, 6)).read_bytes()
    path = tmp_path / "late.264"
    first = data.index(b"\x00\x00\x01\x41")
    path.write_bytes(data[first:])
    assert probe(str(path)).crop == Crop(34, 6)


def test_a_size_change_in_a_cropped_stream_begins_anew(scene: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.264"
    other = raw_clip(tmp_path / "other.264", moving_scene(12, (96, 64)))
    path.write_bytes(cropped(scene, Crop(16, 16)).read_bytes() + other.read_bytes())
    with reader_of(path) as reader:
        made = [(gop.iframe(), gop.motion(5), gop.begins_anew)
                for clip in reader for gop in clip.gops]
    _, alone = first_clip(other)
    np.testing.assert_array_equal(made[-1][0], alone.gops[0].iframe())
    np.testing.assert_array_equal(made[-1][1], alone.gops[0].motion(5))
    assert [anew for _, _, anew in made] == [False] * (len(made) - 1) + [True]


def test_the_shared_case(shared_cases: Path) -> None:
    """bf0.mp4 shows 340 of 352 columns, crop.mp4 the 272 from 80 on."""
    crop = Crop(80, 64)
    reader, clip = first_clip(shared_cases / "crop.mp4")
    assert (reader.choice.route, reader.info.crop) == ("native", crop)
    _, plain = first_clip(shared_cases / "bf0.mp4")
    for gop, other in zip(clip.gops, plain.gops, strict=True):
        t = min(9, gop.num_frames - 1)
        np.testing.assert_array_equal(gop.motion(t)[:, :33], other.motion(t)[8:, 10:])
        np.testing.assert_array_equal(gop.iframe()[:, :260], other.iframe()[64:, 80:])
        # Look-ups beyond column 340 find its last column in one, coded pixels in the other.
        same = gop.residual(t)[:, :260] == other.residual(t)[64:, 80:]
        assert same.mean() > 0.99
