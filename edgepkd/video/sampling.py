"""Which frames of a clip a network looks at (paper.md 1.4), for any GOP layout.

A clip is a row of GOPs. A frame is named by its place: the number of its GOP in the clip and its
position `t` in that GOP (0 = the anchor). Bounds are rounded to even, as numpy does. P modalities
(mv, residual) count one frame less and shift by one, so that frame 0 is skipped; where they hit an
anchor, the last position of the GOP before takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgepkd.config import Modality, SamplingRule
from edgepkd.errors import ConfigError


class Place(NamedTuple):
    """A frame of a clip: GOP number in the clip, position in that GOP (0 = the anchor)."""

    gop: int
    t: int


def sample_test(
    gop_lengths: Sequence[int],
    *,
    modality: Modality,
    num_segments: int,
    rule: SamplingRule = "centre",
    position: int = 5,
) -> tuple[Place, ...]:
    """Return the deterministic place of each temporal segment.

    Args:
        gop_lengths: frames of each GOP of the clip, anchors included, in display order.
        modality: whose network will look.
        num_segments: temporal segments.
        rule: 'centre' takes the segment's centre frame; 'gop' the GOP that holds the centre frame,
            and from it `position` (the last one where the GOP is shorter) for P modalities.
        position: GOP position of the 'gop' rule.

    Raises:
        ConfigError: no GOP, an empty GOP, or no segment.
    """
    num_frames = _checked(gop_lengths, num_segments)
    p_frames = modality != "iframe" and rule == "centre"
    count = num_frames - 1 if p_frames else num_frames
    size = (count - 1) / num_segments
    frames = [round(size * (s + 0.5)) + int(p_frames) for s in range(num_segments)]
    if rule == "centre":
        return tuple(place_of(frame, gop_lengths, modality=modality) for frame in frames)
    gops = [place_of(frame, gop_lengths, modality="iframe").gop for frame in frames]
    if modality == "iframe":
        return tuple(Place(gop, 0) for gop in gops)
    return tuple(Place(gop, min(position, gop_lengths[gop] - 1)) for gop in gops)


def sample_train(
    gop_lengths: Sequence[int],
    *,
    num_segments: Mapping[Modality, int],
    rng: np.random.Generator,
    rule: SamplingRule = "centre",
) -> dict[Modality, tuple[Place, ...]]:
    """Draw a random place for each temporal segment of each modality.

    'centre' draws one frame of each segment, independently for each modality (CoViAR). 'gop' draws
    one GOP for each segment and one position 1.. in it, shared by all modalities that have the same
    number of segments (TEAM-Net).

    Raises:
        ConfigError: no GOP, an empty GOP, or no segment.
    """
    for count in num_segments.values():
        _checked(gop_lengths, count)
    if rule == "centre":
        return {m: _draw_frames(gop_lengths, m, n, rng) for m, n in num_segments.items()}
    shared = {n: _draw_gops(gop_lengths, n, rng) for n in sorted(set(num_segments.values()))}
    return {
        m: tuple(Place(p.gop, 0) for p in shared[n]) if m == "iframe" else shared[n]
        for m, n in num_segments.items()
    }


def segment_bounds(
    num_frames: int, *, num_segments: int, segment: int, p_frames: bool
) -> tuple[int, int]:
    """Return first and one-past-last frame of a temporal segment, at least one frame wide.

    With `p_frames` the last frame number is `num_frames`, one past the end, only for a clip of a
    single frame; `place_of` clamps it.
    """
    size = (num_frames - 1 - int(p_frames)) / num_segments
    begin, end = round(size * segment), round(size * (segment + 1))
    end = max(end, begin + 1)
    return begin + int(p_frames), end + int(p_frames)


def place_of(frame: int, gop_lengths: Sequence[int], *, modality: Modality) -> Place:
    """Return where display frame `frame` is looked up: its anchor, or for a P modality itself.

    A P modality that hits an anchor takes the last position of the GOP before; at the very first
    frame there is none, and Place(0, 0), zero motion, is the answer. Frames past the end are
    clamped to the last one.
    """
    starts = np.cumsum([0, *gop_lengths])
    frame = min(max(frame, 0), int(starts[-1]) - 1)
    gop = int(np.searchsorted(starts, frame, side="right")) - 1
    if modality == "iframe":
        return Place(gop, 0)
    t = frame - int(starts[gop])
    if t == 0 and gop > 0:
        return Place(gop - 1, gop_lengths[gop - 1] - 1)
    return Place(gop, t)


def _draw_frames(
    gop_lengths: Sequence[int], modality: Modality, num_segments: int, rng: np.random.Generator
) -> tuple[Place, ...]:
    places = []
    for segment in range(num_segments):
        begin, end = segment_bounds(sum(gop_lengths), num_segments=num_segments, segment=segment,
                                    p_frames=modality != "iframe")
        places.append(place_of(int(rng.integers(begin, end)), gop_lengths, modality=modality))
    return tuple(places)


def _draw_gops(
    gop_lengths: Sequence[int], num_segments: int, rng: np.random.Generator
) -> tuple[Place, ...]:
    places = []
    for anchor in _draw_frames(gop_lengths, "iframe", num_segments, rng):
        length = gop_lengths[anchor.gop]
        places.append(Place(anchor.gop, int(rng.integers(1, length)) if length > 1 else 0))
    return tuple(places)


def _checked(gop_lengths: Sequence[int], num_segments: int) -> int:
    if not gop_lengths or min(gop_lengths) < 1:
        raise ConfigError(f"gop_lengths is {list(gop_lengths)!r}; allowed: one or more GOPs of 1 "
                          "frame or more.")
    if num_segments < 1:
        raise ConfigError(f"num_segments is {num_segments!r}; allowed: 1 or more.")
    return sum(gop_lengths)
