"""Runs of packets: whose frames go where, when a decoder is shared, and what is held."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import DecodeError, LimitError
from edgepkd.video.decode_runs import DecodeRun, StreamDecoder
from edgepkd.video.decoder import MAX_ERRORS_IN_A_ROW, CodecParams, DecodeCounters
from edgepkd.video.limits import Limits
from tests.clips import encode_clip, moving_scene
from tests.video.reading import gops_of, packets_of, reader_of


@dataclass(eq=False)
class Receiver:
    """What a run knows of a GOP."""

    first_number: int
    last_number: int
    numbers: list[int] = field(default_factory=list)

    def take(self, frame: av.VideoFrame, *, number: int, recent: list[av.VideoFrame]) -> None:
        assert frame.pts == number
        assert len(recent) == (number > self.first_number)
        self.numbers.append(number)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of MPEG-4, a key frame each 12."""
    return encode_clip(tmp_path_factory.mktemp("clip") / "clip.avi", moving_scene(24))


def no_more() -> None:
    return None


def run_of(
    stream: StreamDecoder, packets: list[av.Packet], first: int = 0, *, is_complete: bool = True
) -> DecodeRun:
    run = DecodeRun(stream, starts_closed=True, read_more=no_more)
    for number, packet in enumerate(packets, first):
        run.append(packet, number, is_dropped=False)
    if is_complete:
        run.close()
    return run


def stream_of(params: CodecParams, **settings: object) -> StreamDecoder:
    return StreamDecoder(params, spec=DecodeSpec(**settings),  # type: ignore[arg-type]
                         counters=DecodeCounters())


def test_each_receiver_gets_its_own_frames_as_far_as_asked(clip: Path) -> None:
    params, packets = packets_of(clip)
    stream = stream_of(params)
    run = run_of(stream, packets[:12])
    one, two = Receiver(0, 5), Receiver(6, 11)
    run.add(one)
    run.add(two)
    run.advance(3)
    assert (one.numbers, two.numbers) == ([0, 1, 2, 3], [])
    run.advance(7)
    run.advance(2)  # passed already
    assert (one.numbers, two.numbers) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert stream.counters.packets_decoded == 8
    assert not run.is_done
    run.advance(11)
    assert run.is_done


def test_a_frame_that_was_not_kept_is_decoded_again(clip: Path) -> None:
    params, packets = packets_of(clip)
    stream = stream_of(params)
    run = run_of(stream, packets[:12])
    gop = Receiver(0, 11)
    run.add(gop)
    run.advance(5)
    run.fetch(gop, 2)
    assert gop.numbers == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert stream.counters.packets_decoded == 9


def test_receivers_are_held_weakly(clip: Path) -> None:
    params, packets = packets_of(clip)
    run = run_of(stream_of(params), packets[:12])
    gop, other = Receiver(0, 5), Receiver(6, 11)
    run.add(gop)
    run.add(other)
    gone = weakref.ref(gop)
    gc.disable()
    try:
        del gop
        assert gone() is None
    finally:
        gc.enable()
    run.advance(11)
    assert other.numbers == [6, 7, 8, 9, 10, 11]


def test_frames_that_come_before_their_receiver_wait_for_it(clip: Path) -> None:
    params, packets = packets_of(clip)
    run = run_of(stream_of(params), packets[:12])
    first, second = Receiver(0, 3), Receiver(4, 11)
    run.add(first)
    run.advance(6)
    run.add(second)
    assert second.numbers == [4, 5, 6]


def test_a_run_in_order_goes_on_with_the_same_decoder(clip: Path) -> None:
    params, packets = packets_of(clip)
    stream = stream_of(params)
    first = run_of(stream, packets[:12])
    first.add(one := Receiver(0, 11))
    first.advance(11)
    second = run_of(stream, packets[12:], 12)
    second.add(two := Receiver(12, 23))
    second.advance(23)
    assert (len(one.numbers), two.numbers) == (12, list(range(12, 24)))
    assert len(stream._leases) == 1


def test_more_runs_than_decoders_share_them_and_stay_right(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepkd.video.decode_runs._MAX_DECODER_BYTES", 1)  # two decoders
    params, packets = packets_of(clip)
    stream = stream_of(params)
    runs = [run_of(stream, packets[:12]), run_of(stream, packets[12:], 12),
            run_of(stream, packets[:12])]
    gops = [Receiver(0, 11), Receiver(12, 23), Receiver(0, 11)]
    for run, gop in zip(runs, gops, strict=True):
        run.add(gop)
        run.advance(gop.first_number + 2)
    assert len(stream._leases) == 2
    runs[0].advance(5)  # its decoder was given away: it begins anew
    assert gops[0].numbers == [0, 1, 2, 0, 1, 2, 3, 4, 5]


def test_motion_only_is_for_runs_of_one_anchor(clip: Path) -> None:
    params, packets = packets_of(clip)
    stream = stream_of(params, pixels=False)
    run = run_of(stream, packets[:12], is_complete=False)
    run.add(one := Receiver(0, 5))
    assert not run.motion_only_is_exact  # another anchor may follow
    run.close()
    assert run.motion_only_is_exact
    run.add(two := Receiver(6, 11))
    assert not run.motion_only_is_exact
    assert (one.numbers, two.numbers) == ([], [])


def test_replayed_packets_have_their_own_times(clip: Path) -> None:
    params, packets = packets_of(clip)
    stamps = [(packet.pts, packet.dts) for packet in packets[:12]]
    run = run_of(stream_of(params), packets[:12], first=100)
    run.add(gop := Receiver(100, 111))
    run.advance(105)
    assert packets[3].pts == 103
    assert [(packet.pts, packet.dts) for packet in run.replay()] == stamps
    assert gop.numbers[-1] == 105


def test_an_endless_run_forgets_what_it_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_clip(tmp_path / "clip.mp4", moving_scene(40), codec="libx264", gop=250,
                       quality=20, options={"bf": "0", "refs": "1"})
    expected = [gop.residual(3) for gop in gops_of(path)]
    monkeypatch.setattr("edgepkd.video.decode_runs._MAX_RUN_BYTES", 2000)
    reader = reader_of(path)
    for gop, right in zip(reader, expected, strict=True):
        assert (gop.residual(3) == right).all()
        assert len(gop._live_run()._held) < 36
        gop.release()
    assert reader.counters.packets_decoded == 40


def test_what_was_forgotten_cannot_be_asked_for(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepkd.video.decode_runs._MAX_RUN_BYTES", 1)
    params, packets = packets_of(clip)
    run = DecodeRun(stream_of(params), starts_closed=True, read_more=no_more)
    one, two = Receiver(0, 3), Receiver(4, 11)
    for number, packet in enumerate(packets[:12]):
        run.append(packet, number, is_dropped=False)
        if number == one.last_number:
            run.add(one)
        if number == two.first_number + 1:
            run.add(two)
    assert not run.is_restartable
    assert one.numbers == [0, 1, 2, 3]
    assert run.first_number == 4
    with pytest.raises(DecodeError, match=r"Frame 1 was decoded before .* and is gone"):
        run.fetch(one, 1)


def test_a_stream_of_damage_is_given_up(clip: Path) -> None:
    params, _ = packets_of(clip)
    noise = [av.Packet(b"\x00\x00\x01\xb6\x50" + bytes(range(40, 200))) for _ in range(300)]
    stream = stream_of(params)
    run = run_of(stream, noise)
    with pytest.raises(DecodeError, match=rf"{MAX_ERRORS_IN_A_ROW + 1} packets in a row cannot be "
                                          "decoded as mpeg4"):
        run.advance(299)
    assert stream.counters.errors == MAX_ERRORS_IN_A_ROW + 1


def test_packets_without_a_picture_are_limited() -> None:
    params = CodecParams("mpeg4", None, 64, 48, Fraction(1, 25), limits=Limits(packets=3))
    stream = StreamDecoder(params, spec=DecodeSpec(), counters=DecodeCounters())
    for _ in range(3):
        stream.count_idle()
    with pytest.raises(LimitError, match="4 packets in a row give no picture"):
        stream.count_idle()


def test_an_accumulator_is_used_again_where_the_grid_is_the_same(clip: Path) -> None:
    params, _ = packets_of(clip)
    stream = stream_of(params)
    grid, other = stream.grid(64, 48), stream.grid(96, 64)
    accumulator = stream.accumulator(grid)
    stream.give_back(accumulator)
    assert stream.accumulator(other) is not accumulator
    stream.give_back(accumulator)
    assert stream.accumulator(grid) is accumulator
