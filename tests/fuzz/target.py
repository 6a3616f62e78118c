"""What is done with a hostile file: all that the product does with a video, in any legal order."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.errors import EdgepkdError
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.gop import Gop, GopReader
from edgepkd.video.probe import codec_params, judge, probe
from edgepkd.video.source import Source, open_video

Target = Callable[[bytes, int, Path], bool]
"""(content, seed of what is done, a file to use) -> answered (True) or refused."""

_INPUTS: tuple[InputSpec, ...] = tuple(
    InputSpec(modality, 2, resize_px=32, crop_px=32) for modality in ("mv", "residual", "iframe"))
_MOST_GOPS, _MOST_CLIPS, _MOST_TURNS = 40, 12, 12


class Wrong(Exception):
    """An answer that cannot be one: not finite, of a shape or type that was not promised."""


class _Pipe(io.RawIOBase):
    """A file that can only be read on."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


def use(content: bytes, seed: int, place: Path) -> bool:
    """Read `content` as a video in one of several ways that `seed` chooses.

    Raises:
        Wrong: an answer that was not promised. Whatever else is raised is a finding, too.
    """
    rng = random.Random(seed)
    try:
        with _given(content, place, rng) as source:
            rng.choice((_by_gops, _by_gops, _by_clips))(source, rng)
    except EdgepkdError:
        return False
    return True


class _given:
    """The source: a path most of the time, else something to read from."""

    def __init__(self, content: bytes, place: Path, rng: random.Random) -> None:
        kind = rng.randrange(6)
        self._source: Source
        if kind == 0:
            self._source = io.BytesIO(content)
        elif kind == 1:
            pipe: Any = io.BufferedReader(_Pipe(content))
            self._source = pipe
        else:
            place.write_bytes(content)
            self._source = str(place)

    def __enter__(self) -> Source:
        return self._source

    def __exit__(self, *error: object) -> None:
        if not isinstance(self._source, str):
            file: IO[bytes] = self._source  # type: ignore[assignment]
            file.close()


# ---- GOP by GOP


def _by_gops(source: Source, rng: random.Random) -> None:
    with open_video(source) as video:
        info = probe(video)
        if not judge(info).native_possible:
            return
        packets, params = video.packets(), codec_params(video, info)
        spec = DecodeSpec(gop_frames=rng.choice((2, 5, 12)), grid_px=rng.choice((1, 4, 8)),
                          arithmetic=rng.choice(("subpel", "coviar")),
                          pixels=rng.random() < 0.8,
                          max_short_side_px=rng.choice((16, 40, 288)))
        for _ in range(_MOST_TURNS):
            reader = GopReader(packets, params=params, spec=spec)
            _ask_all(islice(reader, _MOST_GOPS), rng)
            turn = reader.turn
            if turn is None or turn.why != "pictures":
                return
            packets = turn.packets
            params = replace(params, header=turn.header,
                             extradata=turn.extradata or params.extradata)


def _ask_all(gops: Iterator[Gop], rng: random.Random) -> None:
    """Ask each GOP while it is the last, or later, or after it was let go."""
    kept: list[Gop] = []
    for gop in gops:
        _ask(gop, rng)
        how = rng.randrange(6)
        if how < 4:
            gop.release()
        kept.append(gop)
        if how == 5:
            _ask(rng.choice(kept), rng)
    for gop in kept:
        gop.release()


def _ask(gop: Gop, rng: random.Random) -> None:
    calls = [(what, t) for t in range(gop.num_frames) for what in ("motion", "residual")]
    calls += [("iframe", 0), ("plan", 0), ("motion", 0)]
    rng.shuffle(calls)
    for what, t in calls[:rng.choice((2, 8, len(calls)))]:
        try:
            if what == "iframe":
                _check(gop.iframe(), np.uint8, (gop.height_px, gop.width_px, 3))
            elif what == "plan":
                gop.plan(rng.sample(range(gop.num_frames), rng.randrange(gop.num_frames + 1)))
            elif what == "motion":
                _check(gop.motion(t), np.int16, (*gop.grid_shape, 2))
            else:
                _check(gop.residual(t), np.int16, (gop.height_px, gop.width_px, 3))
        except EdgepkdError:
            pass


def _check(array: Any, kind: type, shape: tuple[int, ...]) -> None:
    if array.dtype != kind or array.shape != shape:
        raise Wrong(f"{array.dtype} {array.shape}; promised: {np.dtype(kind)} {shape}")


# ---- clip by clip


def _by_clips(source: Source, rng: random.Random) -> None:
    chosen = rng.sample(_INPUTS, rng.randint(1, 3))
    inputs: dict[Modality, InputSpec] = {spec.modality: spec for spec in chosen}
    frames = rng.choice((4, 12, 60))
    clip = ClipSpec(clip_frames=frames, stride_frames=rng.choice((1, 4, frames)),
                    sampling=rng.choice(("centre", "gop")), position=rng.choice((1, 5)))
    decode = DecodeSpec(pixels="residual" in inputs or rng.random() < 0.3)
    route = rng.choice(("auto", "auto", "auto", "native", "normalize"))
    with ClipReader(source, clip=clip, inputs=inputs, decode=decode, route=route,
                    fps=rng.choice((None, None, 12.5))) as reader:
        before = -np.inf
        for one in islice(reader, _MOST_CLIPS):
            _ask_clip(one, inputs, rng)
            if not np.isfinite((one.start_s, one.end_s)).all() or one.start_s < before:
                raise Wrong(f"a clip from {one.start_s} s to {one.end_s} s, after {before} s")
            before = one.start_s
        for text in (*reader.warnings, *reader.notes, reader.verdict.reason):
            if not text:
                raise Wrong("an empty warning")


def _ask_clip(clip: Clip, inputs: dict[Modality, InputSpec], rng: random.Random) -> None:
    wanted = list(inputs)
    rng.shuffle(wanted)
    for modality in wanted[:rng.randint(0, len(wanted))]:
        try:
            tensor = clip.tensor(modality)
        except EdgepkdError:
            continue
        spec = inputs[modality]
        _check(tensor, np.float32,
               (spec.num_segments, spec.num_channels, spec.crop_px, spec.crop_px))
        if not np.isfinite(tensor).all():
            raise Wrong(f"{modality}: not finite")
