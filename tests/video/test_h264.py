"""SPS parsing: hand-made bit strings, and what x264 writes."""

from __future__ import annotations

import av
import pytest

from edgepkd.video.h264 import NO_CROP, Crop, find_sps, parse_sps
from tests.clips import encode_clip, moving_scene


def golomb(value: int) -> str:
    code = bin(value + 1)[2:]
    return "0" * (len(code) - 1) + code


def unit_of(bits: str) -> bytes:
    """An SPS NAL unit with emulation prevention, as an encoder writes it."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    raw = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    out = bytearray(b"\x67")
    zeros = 0
    for byte in raw:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def sps_bits(*, profile: int, refs: int, mbs_only: bool = True, high: str = "",
             order: str | None = None, crop: str = "0") -> str:
    head = f"{profile:08b}" + "0" * 8 + f"{30:08b}" + golomb(0)
    order = golomb(2) if order is None else order
    size = golomb(19) + golomb(14)
    field = "" if mbs_only else "0"
    return (head + high + golomb(4) + order + golomb(refs) + "0" + size + str(int(mbs_only))
            + field + "1" + crop + "0")


def test_baseline_and_interlaced_fields() -> None:
    sps = parse_sps(unit_of(sps_bits(profile=66, refs=3)))
    assert (sps.profile_idc, sps.chroma_format_idc, sps.bit_depth) == (66, 1, 8)
    assert (sps.num_ref_frames, sps.frame_mbs_only) == (3, True)
    assert (sps.shown_size_px, sps.crop) == ((320, 240), NO_CROP)
    assert not parse_sps(unit_of(sps_bits(profile=77, refs=1, mbs_only=False))).frame_mbs_only


def test_high_profile_with_scaling_lists_and_depth() -> None:
    lists = "1" + "1" + golomb(2 * 7 - 1) * 16 + "1" + golomb(16) + "0" * 6
    high = golomb(1) + golomb(2) + golomb(0) + "0" + lists
    sps = parse_sps(unit_of(sps_bits(profile=100, refs=5, high=high)))
    assert (sps.chroma_format_idc, sps.bit_depth, sps.num_ref_frames) == (1, 10, 5)


@pytest.mark.parametrize(("chroma", "mbs_only", "unit"), [
    (1, True, (2, 2)), (1, False, (2, 4)), (2, True, (2, 1)), (3, True, (1, 1)), (0, True, (1, 1)),
    (0, False, (1, 2)),
])
def test_crop_is_counted_in_its_units(chroma: int, mbs_only: bool, unit: tuple[int, int]) -> None:
    high = golomb(chroma) + "0" * (chroma == 3) + golomb(0) + golomb(0) + "0" + "0"
    crop = "1" + golomb(5) + golomb(1) + golomb(3) + golomb(2)
    sps = parse_sps(unit_of(sps_bits(profile=100, refs=1, high=high, mbs_only=mbs_only, crop=crop)))
    x, y = unit
    assert sps.crop == Crop(left=5 * x, top=3 * y, right=x, bottom=2 * y)
    assert (sps.coded_width_px, sps.coded_height_px) == (320, 240 if mbs_only else 480)
    assert sps.shown_size_px == (320 - 6 * x, sps.coded_height_px - 5 * y)


def test_separate_planes_crop_like_grey() -> None:
    high = golomb(3) + "1" + golomb(0) + golomb(0) + "0" + "0"
    crop = "1" + golomb(5) + golomb(0) * 3
    assert parse_sps(unit_of(sps_bits(profile=244, refs=1, high=high, crop=crop))).crop == Crop(5)


def test_a_crop_that_leaves_nothing_is_damage() -> None:
    crop = "1" + golomb(80) + golomb(80) + golomb(0) + golomb(0)
    assert find_sps(b"\x00\x00\x01" + unit_of(sps_bits(profile=66, refs=1, crop=crop))) is None


def test_picture_order_type_1_and_emulation_prevention() -> None:
    order = golomb(1) + "0" + golomb(1 << 30) + golomb(0) + golomb(3) + golomb(9) * 3
    data = unit_of(sps_bits(profile=66, refs=2, order=order))
    assert b"\x00\x00\x03" in data
    assert parse_sps(data).num_ref_frames == 2


def test_damage_counts_as_absent() -> None:
    good = unit_of(sps_bits(profile=66, refs=3))
    assert find_sps(b"\x00\x00\x00\x01" + good) is not None
    assert find_sps(b"\x00\x00\x00\x01" + good[:5]) is None
    assert find_sps(b"\x00\x00\x00\x01" + unit_of(sps_bits(profile=66, refs=40))) is None
    for junk in (b"", b"\x01", b"\x01\x64\x00\x1e\xff\xe1\x00\x50\x67", b"junk" * 9):
        assert find_sps(junk) is None


@pytest.mark.parametrize("suffix", ["mp4", "264"])
@pytest.mark.parametrize("refs", [1, 3])
def test_x264_avcc_and_annex_b(tmp_path, suffix: str, refs: int) -> None:
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(8), codec="libx264",
                       options={"x264-params": f"ref={refs}:bframes=0"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        data = stream.codec_context.extradata if suffix == "mp4" else None
        sps = find_sps(data or bytes(next(iter(container.demux(stream)))))
    assert sps is not None
    assert (sps.num_ref_frames, sps.frame_mbs_only, sps.bit_depth) == (refs, True, 8)
    assert (sps.coded_width_px, sps.coded_height_px, sps.crop) == (96, 64, NO_CROP)


def test_x264_interlaced_and_444(tmp_path) -> None:
    def sps_of(name: str, **kw):
        path = encode_clip(tmp_path / name, moving_scene(4), codec="libx264", **kw)
        with av.open(str(path)) as container:
            return find_sps(container.streams.video[0].codec_context.extradata)

    assert not sps_of("i.mp4", options={"x264-params": "interlaced=1"}).frame_mbs_only
    assert sps_of("c.mp4", pix_fmt="yuv444p").chroma_format_idc == 3
    assert sps_of("d.mp4", pix_fmt="yuv420p10le").bit_depth == 10
