"""Arrays of two sizes never meet in a kernel: hostile and mutated streams, calls in any order.

In a child with numba's bounds checks on: without them a mistake is heap corruption, not an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import DecodeError
from edgepkd.video.fields import Accumulator, no_cells, residual, working_grid
from tests.clips import encode_clip, moving_scene
from tests.processes import ROOT

HOSTILE = ("heap-overflow-write.mp4", "joined.h264", "crash11_490.h264")
CHILD = """
import random, sys
from dataclasses import replace
from edgepkd.config import DecodeSpec
from edgepkd.errors import EdgepkdError
from edgepkd.video.gop import GopReader
from edgepkd.video.probe import codec_params, judge, probe
from edgepkd.video.source import open_video

def ask(gop, rng):
    calls = [(what, t) for t in range(gop.num_frames) for what in ("motion", "residual")]
    calls += [("iframe", 0), ("plan", 0), ("motion", 0)]
    rng.shuffle(calls)
    for what, t in calls:
        try:
            if what == "iframe":
                gop.iframe()
            elif what == "plan":
                gop.plan([0, gop.num_frames - 1])
            else:
                getattr(gop, what)(t)
        except EdgepkdError:
            pass

def read(path, seed):
    rng = random.Random(seed)
    with open_video(path) as video:
        info = probe(video)
        if not judge(info).native_possible:
            return
        packets, params = video.packets(), codec_params(video, info)
        while packets is not None:
            reader = GopReader(packets, params=params, spec=DecodeSpec(gop_frames=12))
            for gop in reader:
                ask(gop, rng)
                gop.release()
            turn, packets = reader.turn, None
            if turn is not None and turn.why == "pictures":
                packets = turn.packets
                params = replace(params, header=turn.header,
                                 extradata=turn.extradata or params.extradata)

answered = refused = 0
for seed, path in enumerate(sys.argv[1:]):
    try:
        read(path, seed)
        answered += 1
    except EdgepkdError:
        refused += 1
print(answered, refused)
"""


def _read_in_a_child(paths: list[Path], tmp_path: Path) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")})
    assert done.returncode == 0, done.stderr[-2000:]
    answered, refused = map(int, done.stdout.split())
    return answered, refused


def test_hostile_streams_are_answered_or_refused(shared_cases: Path, tmp_path: Path) -> None:
    paths = [shared_cases / "hostile" / name for name in HOSTILE]
    assert sum(_read_in_a_child(paths, tmp_path)) == len(HOSTILE)


def test_mutated_streams_are_answered_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    sources = []
    for number, (suffix, codec, options) in enumerate([
        ("264", "libx264", {"bf": "0", "refs": "3"}), ("mp4", "libx264", {"bf": "0", "refs": "1"}),
        ("ts", "libx264", {"bf": "2"}), ("avi", "mpeg4", {}), ("mpg", "mpeg2video", {}),
        ("flv", "flv", {}),
    ]):
        clips = [encode_clip(tmp_path / f"{number}-{width}.{suffix}", moving_scene(14, (width, 48)),
                             codec=codec, gop=6, options=options) for width in (64, 96)]
        sources += [clips[0].read_bytes(), clips[0].read_bytes() + clips[1].read_bytes()]
    paths = []
    for number in range(180):
        data = bytearray(sources[number % len(sources)])
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            data[place] = rng.integers(256)
        paths.append(tmp_path / f"mutated{number}.bin")
        paths[-1].write_bytes(data)
    answered, refused = _read_in_a_child(paths, tmp_path)
    assert answered + refused == len(paths)
    assert answered > 60


def test_arrays_of_another_size_are_refused_before_a_kernel() -> None:
    grid = working_grid(64, 48, grid_px=8, max_short_side_px=288)
    other = working_grid(96, 64, grid_px=8, max_short_side_px=288)
    accumulator = Accumulator(grid, spec=DecodeSpec())
    with pytest.raises(DecodeError, match="cells of a frame have 96 elements; allowed: 48"):
        accumulator.advance(no_cells(other), None)
    right, wrong = np.zeros((48, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    for picture, anchor in ((right, wrong), (wrong, right)):
        with pytest.raises(DecodeError, match="pictures"):
            residual(picture, anchor, accumulator.state, grid=grid)
    with pytest.raises(DecodeError, match="field"):
        residual(right, right, accumulator.state[1:], grid=grid)
    assert not residual(right, right, accumulator.state, grid=grid).any()
