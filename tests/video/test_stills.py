"""Pictures: a sequence is one video, an animated one is a video, a single one is refused."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, WebPImagePlugin

from edgepkd.config import ClipSpec, InputSpec
from edgepkd.errors import LimitError, SourceError
from edgepkd.video.clips import ClipReader
from edgepkd.video.limits import Limits
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from edgepkd.video.source import open_video, resolve_sources
from tests.clips import moving_scene

SCENE = moving_scene(30)
DURATIONS_MS = [40, 120, 80] * 10


def pictures(folder: Path, *, suffix: str = "jpg", count: int = 30, start: int = 1) -> Path:
    """A folder with the scene as 'img_1.jpg' and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(SCENE[number]).save(folder / f"img_{start + number}.{suffix}")
    return folder


def animation(path: Path | io.BytesIO, form: str, *, count: int = 30) -> None:
    frames = [Image.fromarray(array) for array in SCENE[:count]]
    settings = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(path, form, save_all=True, append_images=frames[1:],
                   duration=DURATIONS_MS[:count], loop=0, **settings)


def decoded(source, **settings) -> tuple[list[np.ndarray], list[float]]:
    """RGB pictures and their times in seconds."""
    with open_video(source, **settings) as video:
        context = video.stream.codec_context
        frames = [frame for packet in [*video.packets(), None] for frame in context.decode(packet)]
        times = [float(frame.pts * video.stream.time_base) for frame in frames]
    return [frame.to_ndarray(format="rgb24") for frame in frames], times


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "ppm"])
def test_a_folder_of_pictures_is_one_video(tmp_path: Path, suffix: str) -> None:
    pictures(tmp_path / "seq", suffix=suffix)
    got, times = decoded(tmp_path / "seq")
    assert times == pytest.approx([number / 25 for number in range(30)])
    assert len(got) == 30
    for number in (0, 8, 9, 29):  # 'img_10' comes after 'img_9'
        differences = np.abs(got[number].astype(int) - SCENE).mean(axis=(1, 2, 3))
        assert differences.argmin() == number


@pytest.mark.parametrize("name", ["seq", "seq/*.png", "seq/img_%d.png", "seq/img_[0-9]*.png"])
def test_every_way_to_name_a_sequence_gives_the_same(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "seq", suffix="png", start=7)
    (source,) = resolve_sources(str(tmp_path / name))
    got, times = decoded(source, fps=10)
    assert times == pytest.approx([number / 10 for number in range(30)])
    assert all(np.array_equal(mine, true) for mine, true in zip(got, SCENE, strict=True))


def test_a_sequence_is_told_with_its_rate_and_is_normalised(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "seq")
    with open_video(folder) as video:
        info = probe(video)
        assert "taken as 25 a second; --fps gives another rate" in video.notes[0]
    assert (info.fps, info.duration_s, info.width_px) == (25, pytest.approx(1.2), 96)
    assert choose_route(info).route == "normalize"
    with open_video(folder, fps=Fraction(30000, 1001)) as video:
        info = probe(video)
        assert video.notes == []
    assert info.fps == pytest.approx(29.97, abs=1e-3)
    assert info.duration_s == pytest.approx(1.001)


def test_clips_of_a_sequence_have_its_times(tmp_path: Path) -> None:
    clip = ClipSpec(clip_frames=12, stride_frames=12)
    inputs = {"mv": InputSpec(modality="mv", num_segments=1)}
    with ClipReader(pictures(tmp_path / "seq"), clip=clip, inputs=inputs, fps=10) as reader:
        times = [(one.start_s, one.end_s) for one in reader]
    assert times[:2] == [pytest.approx((0, 1.2)), pytest.approx((1.2, 2.4))]


def test_a_missing_number_is_no_end(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "seq")
    (folder / "img_5.jpg").unlink()
    assert len(decoded(folder)[0]) == 29
    assert len(decoded(str(folder / "img_%d.jpg"))[0]) == 29


def test_a_damaged_picture_leaves_its_place_empty(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "seq", suffix="png")
    (folder / "img_5.png").write_bytes(b"")
    with open_video(folder) as video:
        times = [packet.pts for packet in video.packets()]
        assert video.num_read_errors == 1
    assert times == [number for number in range(30) if number != 4]


@pytest.mark.parametrize(("suffix", "size"), [("png", (96, 64)), ("jpg", (64, 96))])
def test_pictures_of_different_kinds_are_refused(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    folder = pictures(tmp_path / "seq")
    Image.new("RGB", size).save(folder / f"z.{suffix}")
    kind = {"png": "PNG 96x64", "jpg": "JPEG 64x96"}[suffix]
    with pytest.raises(SourceError, match=f"different kinds or sizes: 30 JPEG 96x64, 1 {kind}"):
        open_video(folder)


def test_pictures_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="holds 3 pictures, and none can be read"):
        open_video(tmp_path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_is_no_video(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"photo.{form.lower()}"
    Image.fromarray(SCENE[0]).save(path, form)
    for source in (path, path.with_suffix(""), io.BytesIO(path.read_bytes())):
        if source == path.with_suffix(""):
            source.write_bytes(path.read_bytes())
        with pytest.raises(SourceError, match="is a picture, not a video") as caught:
            open_video(source)
        assert "seq/*.jpg" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "suffix"), [
    ("WEBP", "webp"), ("GIF", "gif"), ("PNG", "png"), ("PNG", "apng")])
def test_an_animated_picture_is_a_video_with_its_own_times(
    tmp_path: Path, form: str, suffix: str
) -> None:
    path = tmp_path / f"moving.{suffix}"
    animation(path, form)
    starts = np.cumsum([0, *DURATIONS_MS[:-1]]) / 1000
    assert resolve_sources(str(tmp_path)) == [str(path)]
    for source in (path, io.BytesIO(path.read_bytes())):
        got, times = decoded(source, fps=3)
        assert times == pytest.approx(list(starts), abs=0.002)
        assert len(got) == 30
        if form != "GIF":  # of 256 colours
            assert all(np.array_equal(mine, true) for mine, true in zip(got, SCENE, strict=True))


def test_an_animated_webp_says_its_rate_and_length(tmp_path: Path) -> None:
    animation(tmp_path / "moving.webp", "WEBP")
    info = probe(tmp_path / "moving.webp")
    assert (info.fps, info.duration_s) == (pytest.approx(12.5), pytest.approx(2.4))
    assert choose_route(info).route == "normalize"


def test_an_animated_webp_that_is_cut_off_is_said(tmp_path: Path) -> None:
    animation(tmp_path / "moving.webp", "WEBP")
    (tmp_path / "cut.webp").write_bytes((tmp_path / "moving.webp").read_bytes()[:9000])
    with pytest.raises(SourceError, match=r"cut\.webp is an animated WebP that cannot be decoded"):
        open_video(tmp_path / "cut.webp")


def test_pictures_that_do_not_move_are_told_from_those_that_do(tmp_path: Path) -> None:
    animation(tmp_path / "moving.gif", "GIF")
    Image.fromarray(SCENE[0]).save(tmp_path / "still.gif")
    found = resolve_sources(str(tmp_path))
    assert found == [str(tmp_path / "moving.gif")]
    assert [one.reason for one in found.skipped] == ["1 file with .gif: a picture, not a video"]


def test_pictures_through_a_pipe_are_a_video(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "seq")
    data = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    with open_video(io.BytesIO(data), fps=10) as video:
        info = probe(video)
        assert (info.codec, info.fps, len(video.peek(99))) == ("mjpeg", 10, 30)


def with_png_size(data: bytes, width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def test_a_sequence_of_huge_pictures_is_refused_and_allowed(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "seq", suffix="png", count=4)
    for path in folder.iterdir():
        path.write_bytes(with_png_size(path.read_bytes(), 30_000, 30_000))
    for source in (folder, folder / "*.png"):
        with pytest.raises(LimitError, match=r"30000x30000, too many pixels \(900000000\)"):
            open_video(source)
    assert Image.MAX_IMAGE_PIXELS is not None
    with pytest.raises(LimitError, match="the limit pixels"):
        decoded(pictures(tmp_path / "real"), limits=Limits(pixels=96 * 64 - 1))
    assert len(decoded(tmp_path / "real", limits=Limits(pixels=96 * 64))[0]) == 30


def test_a_folder_with_one_huge_picture_still_gives_its_videos(tmp_path: Path) -> None:
    animation(tmp_path / "moves.gif", "GIF")
    Image.fromarray(SCENE[0]).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(with_png_size(data, 60_000, 60_000))
    assert resolve_sources(tmp_path) == [str(tmp_path / "moves.gif")]


def test_a_huge_animation_is_refused_and_allowed(tmp_path: Path) -> None:
    animation(tmp_path / "a.webp", "WEBP")
    data = (tmp_path / "a.webp").read_bytes()
    with pytest.raises(LimitError, match=r"96x64, too many pixels \(6144\)"):
        open_video(tmp_path / "a.webp", limits=Limits(pixels=6000))
    with pytest.raises(LimitError, match=r"96x64"):
        open_video(io.BytesIO(data), limits=Limits(pixels=6000))
    assert len(decoded(tmp_path / "a.webp", limits=Limits(pixels=6144))[0]) == 30


@pytest.mark.parametrize("told", [None, 0, -40, 1e30, float("nan"), float("inf"), "long"])
def test_a_frame_shows_for_no_senseless_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    animation(tmp_path / "a.webp", "WEBP", count=4)
    load = WebPImagePlugin.WebPImageFile.load

    def loaded(picture):
        done = load(picture)
        picture.info["duration"] = told
        return done

    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", loaded)
    assert decoded(tmp_path / "a.webp")[1] == pytest.approx([0, 0.1, 0.2, 0.3])
