"""GOPs of odd streams: sizes, rotation, damage, memory."""

from __future__ import annotations

import gc
import random
import resource
import weakref
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from edgepkd.video.decoder import DecodeCounters
from edgepkd.video.gop_reader import GopReader
from edgepkd.video.orientation import Orientation
from tests.clips import encode_clip, moving_scene, translating_texture
from tests.video.reading import gops_of, packets_of, plain_frames, reader_of

X264 = {"bf": "0", "refs": "1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames, MPEG-4, GOP 12."""
    return encode_clip(tmp_path_factory.mktemp("clip") / "clip.avi", moving_scene(30))


# -- shapes of streams ------------------------------------------------------------------------


def test_one_frame(tmp_path: Path) -> None:
    (gop,) = gops_of(encode_clip(tmp_path / "clip.avi", moving_scene(1)))
    assert gop.num_frames == 1
    assert not gop.motion(0).any()
    assert gop.iframe().shape == (64, 96, 3)


def test_intra_only_p_frames_are_no_motion(tmp_path: Path) -> None:
    """Noise: the encoder finds nothing to predict from, so P-frames hold intra blocks alone."""
    noise = np.random.default_rng(1).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    path = encode_clip(tmp_path / "clip.avi", noise, quality=1)
    frames = [f.to_ndarray(format="rgb24").astype(int) for f in plain_frames(path)]
    (gop,) = gops_of(path)
    still = ~gop.motion(3).any(-1)
    assert still.mean() > 0.5
    difference = frames[3] - frames[0]
    mask = still.repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(gop.residual(3)[mask], difference[mask])


@pytest.mark.parametrize("size", [(338, 250), (50, 38), (16, 16)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(4, size))
    (gop,) = gops_of(path)
    assert (gop.width_px, gop.height_px) == size
    assert gop.residual(3).shape == (size[1], size[0], 3)
    assert gop.motion(3).shape == (-(-size[1] // 8), -(-size[0] // 8), 2)


def test_a_change_of_size_starts_a_new_grid(tmp_path: Path) -> None:
    packets, params = [], None
    for number, size in enumerate([(96, 64), (160, 112)]):
        path = encode_clip(tmp_path / f"{number}.264", moving_scene(12, size), codec="libx264",
                           quality=20, options=X264, container_format="h264")
        got, more = packets_of(path)
        params = params or got
        packets += more
    assert params is not None
    first = GopReader(packets, params=params)
    gops = list(first)
    assert first.turn is not None
    second = GopReader(first.turn.packets, params=replace(params, header=first.turn.header))
    gops += list(second)
    assert len(gops) == 2
    assert second.turn is None
    for gop, (width, height) in zip(gops, [(96, 64), (160, 112)], strict=True):
        assert gop.residual(5).shape == (height, width, 3)
        assert gop.motion(5).shape == (height // 8, width // 8, 2)
        assert (gop.width_px, gop.height_px) == (width, height)


# -- rotation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("rotation", "step"), [
    (90, (2, -4)), (180, (-4, -2)), (-90, (-2, 4)), (0, (4, 2)),
])
def test_rotation_turns_arrays_and_vectors(tmp_path: Path, rotation: int,
                                           step: tuple[int, int]) -> None:
    """Content that moves by (4, 2) in coded pictures, seen after turning counter-clockwise."""
    path = encode_clip(tmp_path / "clip.avi", translating_texture(4, (160, 96), (4, 2)))
    (plain,) = gops_of(path)
    (gop,) = gops_of(path, orientation=Orientation(rotation // 90 % 4))
    np.testing.assert_array_equal(gop.iframe(), np.rot90(plain.iframe(), rotation // 90))
    np.testing.assert_array_equal(gop.residual(3), np.rot90(plain.residual(3), rotation // 90))
    field = gop.motion(3)
    assert field.shape[:2] == gop.grid_shape == gop.motion(0).shape[:2]
    assert (gop.height_px, gop.width_px) == gop.iframe().shape[:2]
    assert tuple(np.median(field.reshape(-1, 2), axis=0)) == (12 * step[0], 12 * step[1])


# -- damage -----------------------------------------------------------------------------------


def _damaged(packets: list[av.Packet], *, numbers: set[int]) -> list[av.Packet]:
    """Flip bits in place: a packet made from bytes has no padding, and decoders read beyond it."""
    chance = random.Random(4)
    for number in sorted(numbers):
        data = bytearray(bytes(packets[number]))
        for _ in range(max(4, len(data) // 20)):
            data[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
        packets[number].update(bytes(data))
    return packets


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_damage_is_concealed_and_counted(tmp_path: Path, codec: str) -> None:
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(36, (160, 96)), codec=codec,
                       quality=20 if codec == "libx264" else 3,
                       options=X264 if codec == "libx264" else {})
    params, packets = packets_of(path)
    counters = DecodeCounters()
    damaged = _damaged(packets, numbers={0, 4, 12, 15, 16, 17})
    gops = list(GopReader(damaged, params=params, counters=counters))
    clean = gops_of(path)
    for gop in gops:
        assert gop.iframe().shape == (96, 160, 3)
        assert gop.motion(11).shape == (12, 20, 2)
        assert gop.residual(6).shape == (96, 160, 3)
    assert counters.errors > 0
    np.testing.assert_array_equal(gops[2].motion(11), clean[2].motion(11))
    np.testing.assert_array_equal(gops[2].residual(6), clean[2].residual(6))


def test_a_lost_anchor_is_replaced_by_the_next_frame(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(12))
    params, packets = packets_of(path)
    broken = bytearray(bytes(packets[0]))
    start = broken.find(b"\x00\x00\x01\xb6")
    broken[start + 5 :] = bytes(len(broken) - start - 5)
    packets[0].update(bytes(broken))
    counters = DecodeCounters()
    (gop,) = GopReader(packets, params=params, counters=counters)
    assert gop.num_frames == 12
    assert gop.iframe().shape == (64, 96, 3)
    assert gop.motion(11).shape == (8, 12, 2)
    assert counters.errors > 0


# -- memory -----------------------------------------------------------------------------------


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_without_the_cyclic_collector(clip: Path) -> None:
    def read_all(times: int) -> None:
        for _ in range(times):
            for gop in reader_of(clip):
                gop.plan([0, 5])
                gop.motion(gop.num_frames - 1)
                gop.residual(5)
                gop.iframe()
                gop.release()

    gc.collect()
    gc.disable()
    try:
        read_all(10)
        before_kib = _resident_kib()
        read_all(100)  # 3,000 frames; each kept frame would cost 10 KiB or more
        after_kib = _resident_kib()
    finally:
        gc.enable()
    assert after_kib - before_kib < 8 << 10


@pytest.mark.slow
def test_a_gop_is_freed_when_it_is_let_go(clip: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        gops = gops_of(clip)
        gops[0].residual(5)
        gone = weakref.ref(gops[0])
        del gops
        assert gone() is None
    finally:
        gc.enable()
