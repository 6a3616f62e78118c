"""Display matrices: the eight orientations of a square, and matrices that say nothing.

What is expected is worked out pixel by pixel from the matrix, as ISO/IEC 14496-12 defines it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from edgepkd.config import ClipSpec, InputSpec, Modality
from edgepkd.errors import DecodeError
from edgepkd.runtime.annotate import save_annotated
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.orientation import Display, Margins, Orientation, display_of, display_of_matrix
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from edgepkd.video.sampling import Place
from tests.clips import encode_clip, moving_scene, translating_texture, with_display_matrix
from tests.outputs import place
from tests.video.reading import gops_of

ONE = 1 << 16
SQUARE = {
    "upright": (1, 0, 0, 1), "hflip": (-1, 0, 0, 1), "vflip": (1, 0, 0, -1),
    "turned 180": (-1, 0, 0, -1), "transposed": (0, 1, 1, 0), "clockwise": (0, 1, -1, 0),
    "counter-clockwise": (0, -1, 1, 0), "antitransposed": (0, -1, -1, 0),
}
"""a, b, c, d: a pixel of the picture at (x, y) is looked at in (a x + c y, b x + d y)."""
NOTHING = {
    "zeros": [0] * 9, "ones": [ONE] * 9, "huge": [2**31 - 1] * 9, "smallest": [-(2**31)] * 9,
    "no height": [ONE, 0, 0, 0, 0, 0, 0, 0, 1 << 30], "no y": [ONE, 0, 0, ONE, 0, 0, 0, 0, 1 << 30],
    "a line": [-ONE, ONE, 0, ONE, -ONE, 0, 0, 0, 1 << 30],
}
PLACES: dict[Modality, Place] = {"iframe": Place(0, 0), "mv": Place(0, 5), "residual": Place(0, 5)}


def nine(square: tuple[int, ...], scale: int = ONE) -> list[int]:
    a, b, c, d = square
    return [a * scale, b * scale, 0, c * scale, d * scale, 0, 0, 0, 1 << 30]


def looked_at(array: np.ndarray, square: tuple[int, ...]) -> np.ndarray:
    """Every pixel put where the matrix says, the whole shifted to begin at 0."""
    a, b, c, d = square
    y, x = np.mgrid[: array.shape[0], : array.shape[1]]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    out = np.empty((to_y.max() + 1, to_x.max() + 1, *array.shape[2:]), array.dtype)
    out[to_y, to_x] = array
    return out


def field_looked_at(field: np.ndarray, square: tuple[int, ...]) -> np.ndarray:
    a, b, c, d = square
    x, y = field[..., 0], field[..., 1]
    return looked_at(np.stack([a * x + c * y, b * x + d * y], axis=-1), square)


def first_clip(path: Path, route: Any = "auto") -> tuple[ClipReader, Clip]:
    inputs = {m: InputSpec(m, 3, resize_px=72, crop_px=64) for m in PLACES}
    reader = ClipReader(str(path), clip=ClipSpec(), inputs=inputs, route=route)
    return reader, next(iter(reader))


def mean_difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - two).mean())


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12.5 x 8.25 cells, so that both axes have a partial one."""
    path = tmp_path_factory.mktemp("matrix") / "upright.mp4"
    return encode_clip(path, moving_scene(24, (100, 66)))


@pytest.mark.parametrize("scale", [ONE, 3 * ONE, 100])
@pytest.mark.parametrize("name", SQUARE)
def test_native_arrays_are_those_of_the_upright_file_turned(
    upright: Path, name: str, scale: int
) -> None:
    square = SQUARE[name]
    _, plain = first_clip(upright, "native")
    path = with_display_matrix(upright, nine(square, scale))
    reader, clip = first_clip(path, "native")
    assert reader.choice.route == "native"
    for t in (0, 1, 5, 11):
        np.testing.assert_array_equal(
            clip.gops[1].motion(t), field_looked_at(plain.gops[1].motion(t), square))
        np.testing.assert_array_equal(
            clip.gops[1].residual(t), looked_at(plain.gops[1].residual(t), square))
    assert clip.gops[1].motion(5).any()
    np.testing.assert_array_equal(clip.gops[1].iframe(), looked_at(plain.gops[1].iframe(), square))
    assert clip.gops[1].iframe().shape[:2] == (clip.gops[1].height_px, clip.gops[1].width_px)
    image = clip.image("mv", PLACES["mv"])
    assert image.pixels.shape[:2] == clip.gops[0].grid_shape
    corners = looked_at(_in_picture(), square)
    (top, left) = np.argwhere(corners)[0]
    assert image.origin == (left / 8, top / 8)
    assert image.extent == (np.ptp(np.argwhere(corners)[:, 1]) / 8 + 1 / 8,
                            np.ptp(np.argwhere(corners)[:, 0]) / 8 + 1 / 8)


def _in_picture() -> np.ndarray:
    """Which pixels of the 13 x 9 cells lie in a picture of 100 x 66."""
    inside = np.zeros((72, 104), bool)
    inside[:66, :100] = True
    return inside


@pytest.mark.slow
@pytest.mark.parametrize("name", SQUARE)
def test_normalised_clips_are_those_of_turned_frames(tmp_path: Path, name: str) -> None:
    """As of a file whose frames were turned before they were encoded, and of no other."""
    square, frames = SQUARE[name], moving_scene(13, (136, 104))
    frames[:, :, :40] = (200, 40, 40)
    coded = encode_clip(tmp_path / "coded.mp4", frames)
    _, clip = first_clip(with_display_matrix(coded, nine(square)), "normalize")
    got = {m: clip.image(m, place).pixels for m, place in PLACES.items()}
    differences = {}
    for other, turn in SQUARE.items():
        baked = encode_clip(tmp_path / "baked.mp4", [looked_at(f, turn) for f in frames])
        _, clip = first_clip(baked, "normalize")
        differences[other] = {m: mean_difference(got[m], clip.image(m, place).pixels)
                              for m, place in PLACES.items()}
    assert differences[name]["iframe"] < 4
    for m in PLACES:
        assert min(differences, key=lambda other, m=m: differences[other][m]) == name, m


@pytest.mark.slow
@pytest.mark.parametrize("route", ["native", "normalize"])
@pytest.mark.parametrize("name", SQUARE)
def test_vectors_have_the_sign_that_is_seen(tmp_path: Path, name: str, route: str) -> None:
    a, b, c, d = SQUARE[name]
    frames = translating_texture(12, (256, 192), (2, 1))
    coded = encode_clip(tmp_path / "coded.mp4", frames)
    _, clip = first_clip(with_display_matrix(coded, nine(SQUARE[name])), route)
    pixels = clip.image("mv", PLACES["mv"]).pixels
    moved = np.median(pixels[4:-4, 4:-4].reshape(-1, 2).astype(int), axis=0) - 128
    seen = np.array([a * 2 + c, b * 2 + d]) * 5  # pixels since the anchor
    size = (256, 192) if a else (192, 256)
    np.testing.assert_allclose(moved, seen * (340 / size[0], 256 / size[1]) * 6.375, atol=6)


@pytest.mark.parametrize("name", SQUARE)
def test_saved_videos_are_turned(tmp_path: Path, name: str) -> None:
    frames = np.full((3, 64, 96, 3), 90, np.uint8)
    frames[:, :32, :48], frames[:, 32:, :48] = 20, 200
    coded = encode_clip(tmp_path / "coded.mp4", frames)
    out = tmp_path / "out.mp4"
    turned = str(with_display_matrix(coded, nine(SQUARE[name])))
    for _ in save_annotated(turned, [], place(out), fps=25):
        pass
    with av.open(str(out)) as container:
        saved = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(saved) == 3
    for picture, frame in zip(saved, frames, strict=True):
        expected = looked_at(frame, SQUARE[name])
        assert picture.shape == expected.shape
        assert mean_difference(picture, expected) < 4


@pytest.mark.parametrize("name", NOTHING)
def test_matrices_that_say_nothing_leave_pictures_as_they_are(upright: Path, name: str) -> None:
    path = with_display_matrix(upright, NOTHING[name])
    info = probe(str(path))
    assert (info.rotation_deg, info.mirrored, choose_route(info).route) == (0, False, "native")
    _, plain = first_clip(upright)
    for route in ("native", "normalize"):
        _, clip = first_clip(path, route)
        assert mean_difference(clip.image("iframe", Place(0, 0)).pixels, _scaled(
            plain.image("iframe", Place(0, 0)).pixels, route)) < (1e-9 if route == "native" else 6)
    out = path.with_name("saved.mp4")
    for _ in save_annotated(str(path), [], place(out), fps=25):
        pass
    with av.open(str(out)) as container:
        saved = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert mean_difference(saved, plain.image("iframe", Place(0, 0)).pixels) < 6


def _scaled(picture: np.ndarray, route: str) -> np.ndarray:
    if route == "native":
        return picture
    return np.asarray(Image.fromarray(picture).resize((340, 256), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("degrees", "mirrored"), [(0, True), (180, True), (90, True), (-90, True),
                                                   (180, False), (37, False), (-123, True)])
def test_angles_and_mirror_images_are_told_apart(degrees: int, mirrored: bool) -> None:
    turn = np.deg2rad(degrees)
    # Counter-clockwise, with y down; mirrored first.
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirrored:
        matrix[0] *= -1
    (a, b), (c, d) = (matrix * ONE).round().astype(int).tolist()
    assert display_of_matrix([a, b, 0, c, d, 0, 7, 9, 1 << 30]) == Display(degrees, mirrored)


def test_other_angles_are_turned_by_the_nearest_quarter() -> None:
    assert Display(80, True).orientation == Orientation(1, True)
    assert Display(-100).orientation == Orientation(3)
    assert Display(-179).orientation == Orientation(2)


def test_margins_go_with_the_picture() -> None:
    margins = Margins(1, 2, 3, 4)
    assert Orientation(0, True).turned_margins(margins) == (3, 2, 1, 4)
    assert Orientation(1).turned_margins(margins) == (2, 3, 4, 1)
    assert Orientation(3, True).turned_margins(margins) == (4, 3, 2, 1)


# -- orientation in the stream itself -----------------------------------------------------------


def sei(*, hflip: bool, vflip: bool, sixteenths: int = 0) -> bytes:
    """An H.264 display orientation message (D.1.27), that stays until the next one."""
    bits = f"0{hflip:b}{vflip:b}{sixteenths << 12:016b}" + "010" + "0" + "1"  # period 1
    bits += "0" * (-len(bits) % 8)
    payload = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    unit, zeros = bytearray(b"\x06"), 0
    for byte in bytes([47, len(payload)]) + payload + b"\x80":
        if zeros >= 2 and byte <= 3:
            unit.append(3)
            zeros = 0
        unit.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\x00\x00\x00\x01" + bytes(unit)


def with_messages(path: Path, messages: dict[int, bytes]) -> Path:
    """A raw H.264 stream with a message before some of its key frames, by their number."""
    parts = path.read_bytes().split(b"\x00\x00\x00\x01\x67")
    out = path.with_name("messages.264")
    data = bytearray(parts[0])
    for number, part in enumerate(parts[1:]):
        # A message comes after the parameter sets and before the slice.
        start = min(part.index(code) for code in (b"\x00\x00\x01\x65", b"\x00\x00\x01\x06")
                    if code in part)
        start -= part[start - 1] == 0
        data += b"\x00\x00\x00\x01\x67" + part[:start] + messages.get(number, b"") + part[start:]
    out.write_bytes(data)
    return out


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_clip(tmp_path_factory.mktemp("raw") / "raw.264", moving_scene(24, (96, 64)),
                       codec="libx264", gop=12, quality=18,
                       options={"bf": "0", "refs": "1", "x264-params": "repeat-headers=1"})


def test_a_message_in_the_stream_mirrors_like_a_matrix(raw: Path) -> None:
    path = with_messages(raw, {n: sei(hflip=True, vflip=False) for n in (0, 1)})
    info = probe(str(path))
    assert (info.mirrored, info.rotation_deg, info.display_changes) == (True, 0, False)
    _, plain = first_clip(raw, "native")
    _, clip = first_clip(path, "native")
    np.testing.assert_array_equal(clip.gops[1].iframe(), plain.gops[1].iframe()[:, ::-1])
    field = plain.gops[1].motion(5)[:, ::-1] * np.array([-1, 1], np.int16)
    np.testing.assert_array_equal(clip.gops[1].motion(5), field)
    out = path.with_name("saved.mp4")
    for _ in save_annotated(str(path), [], place(out), fps=25):
        pass
    with av.open(str(raw)) as one, av.open(str(out)) as two:
        for before, after in zip(one.decode(video=0), two.decode(video=0), strict=True):
            assert mean_difference(before.to_ndarray(format="rgb24")[:, ::-1],
                                   after.to_ndarray(format="rgb24")) < 6


def test_a_stream_that_turns_on_its_way_is_normalised(raw: Path) -> None:
    path = with_messages(raw, {1: sei(hflip=False, vflip=True)})
    info = probe(str(path))
    assert info.display_changes
    assert choose_route(info).reason == "the display orientation changes"
    _, clip = first_clip(path)
    first, second = (clip.image("iframe", Place(n, 0)).pixels for n in (0, 1))
    _, plain = first_clip(raw, "normalize")
    straight = [plain.image("iframe", Place(n, 0)).pixels for n in (0, 1)]
    assert mean_difference(first, straight[0]) < 3
    assert mean_difference(second, straight[1][::-1]) < 3
    assert mean_difference(second, straight[1]) > 6
    # In between, the last message holds: frames that turn to and fro would have no small residual.
    energy = [mean_difference(c.image("residual", Place(1, 9)).pixels, np.array(128))
              for c in (clip, plain)]
    assert energy[0] < 1.2 * energy[1]


def test_a_native_stream_that_turns_where_nobody_looked_is_refused(raw: Path) -> None:
    path = with_messages(raw, {1: sei(hflip=False, vflip=True)})
    _, gop = gops_of(path)
    with pytest.raises(DecodeError, match="display orientation changes"):
        gop.iframe()


def test_side_data_that_pyav_does_not_know_is_no_traceback(tmp_path: Path) -> None:
    """EXIF data in a JPEG hide the matrix; the angle can still be read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.zeros((32, 48, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif)
    with av.open(str(tmp_path / "turned.jpg")) as container:
        assert display_of(next(container.decode(video=0))) == Display(-90)
