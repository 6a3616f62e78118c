"""What is done with a hostile file: all that the product does with a video, in any legal order."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality, Route
from edgepkd.errors import ConfigError, DecodeError, EdgepkdError
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.gop import Gop
from edgepkd.video.gop_reader import GopReader
from edgepkd.video.probe import codec_params, probe
from edgepkd.video.routes import choose_route
from edgepkd.video.source import Source, open_video

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
    """Read `content` as a video in one of several ways that `seed` chooses; True: answered.

    Raises:
        Wrong: an answer that was not promised. Whatever else is raised is a finding, too.
    """
    rng = random.Random(seed)
    try:
        with ExitStack() as files, warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy's: a number that is none
            how = rng.random()
            if how < 0.6:
                _run(_by_gops(_given(content, place, rng, files), rng))
            elif how < 0.68:
                # Two at once, each a step at a time.
                first, second = (_by_gops(_given(content, place, rng, files), rng)
                                 for _ in range(2))
                _run(one for both in zip_longest(first, second) for one in both)
            else:
                _by_clips(_given(content, place, rng, files), rng)
    except EdgepkdError:
        return False
    return True


def _run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def _given(content: bytes, place: Path, rng: random.Random, files: ExitStack) -> Source:
    """The source: a path most of the time, else something to read from."""
    kind = rng.randrange(6)
    if kind == 0:
        return files.enter_context(io.BytesIO(content))
    if kind == 1:
        return files.enter_context(io.BufferedReader(_Pipe(content)))
    place.write_bytes(content)
    return str(place)


# ---- GOP by GOP

def _by_gops(source: Source, rng: random.Random) -> Iterator[None]:
    """Nothing is yielded but the occasion to do something else in between."""
    with open_video(source) as video:
        info = probe(video)
        if not choose_route(info).native_possible:
            return
        packets, params = video.packets(), codec_params(video, info)
        spec = DecodeSpec(gop_frames=rng.choice((2, 5, 12)), grid_px=rng.choice((1, 4, 8)),
                          arithmetic=rng.choice(("subpel", "coviar")),
                          pixels=rng.random() < 0.8,
                          max_short_side_px=rng.choice((16, 40, 288, 288)))
        for _ in range(_MOST_TURNS):
            reader = GopReader(packets, params=params, spec=spec)
            yield from _ask_all(islice(reader, rng.choice((1, 2, _MOST_GOPS, _MOST_GOPS))), rng)
            turn = reader.turn
            if turn is None or turn.why != "pictures":
                return
            packets = turn.packets
            params = replace(params, header=turn.header,
                             extradata=turn.extradata or params.extradata)


def _ask_all(gops: Iterator[Gop], rng: random.Random) -> Iterator[None]:
    """Ask each GOP while it is the last, or later, or after it was let go."""
    kept: list[Gop] = []
    before = -np.inf
    for gop in gops:
        times = np.array([before, *gop.times_s])
        if not np.isfinite(times[1:]).all() or (np.diff(times) < 0).any():
            raise Wrong(f"times {times}")
        before = times[-1]
        _ask(gop, rng)
        how = rng.randrange(6)
        if how < 4:
            gop.release()
            if how == 0:
                _ask_in_vain(gop, rng)
        else:
            kept.append(gop)
        if how == 5:
            _ask(rng.choice(kept), rng)
        yield
    for gop in kept:
        _ask(gop, rng)
        gop.release()


def _ask(gop: Gop, rng: random.Random) -> None:
    calls = [(what, t) for t in range(gop.num_frames) for what in ("motion", "residual")]
    calls += [("iframe", 0), ("plan", 0), ("motion", 0), ("motion", gop.num_frames - 1)]
    rng.shuffle(calls)
    for what, t in calls[:rng.choice((2, 8, len(calls)))]:
        with suppress(EdgepkdError):
            if what == "iframe":
                _check(gop.iframe(), np.uint8, (gop.height_px, gop.width_px, 3))
            elif what == "plan":
                gop.plan(rng.sample(range(gop.num_frames), rng.randrange(gop.num_frames + 1)))
            elif what == "motion":
                _check(gop.motion(t), np.int16, (*gop.grid_shape, 2))
            else:
                residual = gop.residual(t)
                _check(residual, np.int16, (gop.height_px, gop.width_px, 3))
                if residual.size and np.abs(residual).max() > 255:
                    raise Wrong("a residual of more than 255")


def _ask_in_vain(gop: Gop, rng: random.Random) -> None:
    """A GOP that was let go answers nothing."""
    t = rng.randrange(gop.num_frames)
    gop.release()
    for call in (lambda: gop.motion(t), lambda: gop.residual(t), gop.iframe):
        try:
            call()
        except (DecodeError, ConfigError):
            continue
        raise Wrong(f"a GOP that was released answers at {t}")


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
    route: Route = rng.choice(("auto", "auto", "auto", "auto", "native", "native", "normalize"))
    most = rng.choice((1, _MOST_CLIPS))
    with ClipReader(source, clip=clip, inputs=inputs, decode=decode, route=route,
                    fps=rng.choice((None, None, 12.5))) as reader:
        before = -np.inf
        for one in islice(reader, most):
            _ask_clip(one, inputs, rng)
            if not before <= one.start_s <= one.end_s < np.inf:
                raise Wrong(f"a clip from {one.start_s} s to {one.end_s} s, after {before} s")
            before = one.start_s
        for text in (*reader.warnings, *reader.notes, reader.choice.reason):
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
               spec.input_shape)
        if not np.isfinite(tensor).all():
            raise Wrong(f"{modality}: not finite")
