"""Inputs are the same every time, of every kind, and most of them are still videos."""

from __future__ import annotations

import io
import random
from collections import Counter

import av
import pytest

from tests.fuzz.bits import Header, nal_units, read_sps, sps_with_size, unescaped
from tests.fuzz.mutate import make_input
from tests.fuzz.muxers import ELSEWHERE, HOLDS, MUXERS
from tests.fuzz.seeds import LARGEST_BYTES, Seeds, make_seeds
from tests.fuzz.units import flat, parse, to_bytes


@pytest.fixture(scope="module")
def seeds() -> Seeds:
    return make_seeds()


class _First(random.Random):
    """Chooses what is usual."""

    def choice(self, options: object) -> object:  # type: ignore[override]
        return options[0]  # type: ignore[index]

    def random(self) -> float:
        return 0.99


@pytest.mark.slow
def test_inputs_are_the_same_every_time(seeds: Seeds) -> None:
    again = make_seeds()
    assert again == seeds
    inputs = [make_input(seeds, seed=3, number=number) for number in range(400)]
    assert inputs == [make_input(again, seed=3, number=number) for number in range(400)]
    assert len(set(inputs)) > 380
    assert inputs != [make_input(seeds, seed=4, number=number) for number in range(400)]
    assert max(map(len, inputs)) <= LARGEST_BYTES


@pytest.mark.slow
def test_every_stream_plays_in_every_container_it_is_put_into(seeds: Seeds) -> None:
    for stream in seeds.streams:
        for name in set(HOLDS.get(stream.codec, ELSEWHERE)):
            data = MUXERS[name]([stream], _First())
            with av.open(io.BytesIO(data)) as container:
                frames = list(container.decode(video=0))
            assert len(frames) == len(stream.packets), (stream.codec, name)


def test_a_file_is_what_its_units_are(seeds: Seeds) -> None:
    for data in seeds.files:
        units = parse(data)
        with av.open(io.BytesIO(data)) as container, \
                av.open(io.BytesIO(to_bytes(units))) as rebuilt:
            assert rebuilt.format.name == container.format.name
        assert len(flat(units)) > 3


@pytest.mark.slow
def test_inputs_are_of_every_format_and_often_open(seeds: Seeds) -> None:
    formats = Counter[str]()
    for number in range(600):
        try:
            with av.open(io.BytesIO(make_input(seeds, seed=1, number=number)),
                         metadata_errors="replace") as container:
                formats[container.format.name.split(",")[0]] += 1
        except av.FFmpegError:
            formats["none"] += 1
    assert {"mov", "avi", "mpegts", "flv", "matroska", "mpeg", "h264", "m4v"} <= set(formats)
    assert formats["none"] < 200


def test_headers_are_written_as_they_were_read(seeds: Seeds) -> None:
    stream = next(one for one in seeds.streams if one.codec == "h264")
    units = [unit for unit in nal_units(stream.header) if unit[0] & 31 == 7]
    assert units
    for unit in units:
        header = Header.of(unescaped(unit[1:]))
        read_sps(header)
        assert header.written() == unescaped(unit[1:])
        assert sps_with_size(unit, stream.width // 16, stream.height // 16) == unit
        assert sps_with_size(unit, 20, 3) != unit
