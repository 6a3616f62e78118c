"""Signals of GOPs as named arrays, and those as `.npz` files that need no pickle.

What each array holds is in docs/vectors.md; a test compares it with `KEYS`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgepkd.text import shown
from edgepkd.video.gop import Gop

FORMAT_VERSION = 1
SUFFIX = ".npz"
Kind = Literal["motion", "residual", "iframe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOTION_UNIT_PX = 0.25
"""Vectors count quarter pixels, of pictures of motion_width_px x motion_height_px."""

Arrays = dict[str, NDArray[Any]]
KEYS = ("format_version", "source", "route", "times_s", "gop_index", "iframe_index", "width_px",
        "height_px", "motion_width_px", "motion_height_px", "motion_unit_px", "motion_margins",
        *KINDS)
_OF_FRAMES = ("times_s", "iframe_index", "motion", "residual")
_OF_GOPS = ("gop_index", "iframe")
_QUICK = 1
"""zlib's level: six times as fast as its default, for a tenth more bytes."""


def gop_arrays(
    gop: Gop, *, kinds: Collection[Kind], index: int, first_time_s: float, source: str
) -> Arrays:
    """The arrays of one GOP, whose number in its source is `index`; only `kinds` are decoded.

    Raises:
        DecodeError: no frame of the GOP can be decoded.
    """
    positions = range(gop.num_frames)
    gop.plan(positions if "residual" in kinds else [0] if "iframe" in kinds else [])
    signals: Arrays = {}
    if "iframe" in kinds:
        signals["iframe"] = gop.iframe()[None]
    # Both of a frame together, so that motion is accumulated once.
    fields, residuals = [], []
    for t in positions:
        if "motion" in kinds:
            fields.append(gop.motion(t))
        if "residual" in kinds:
            residuals.append(gop.residual(t))
    if fields:
        signals["motion"] = _stacked(gop, fields)
    if residuals:
        signals["residual"] = np.stack(residuals)
    return _described(gop, index=index, first_time_s=first_time_s, source=source) | signals


def files_of_clip(gops: Sequence[Arrays]) -> Iterator[Arrays]:
    """The arrays of GOPs in a row, joined as long as shapes and route stay the same."""
    for _, alike in groupby(gops, key=_form):
        yield _joined(list(alike))


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]], *, compressed: bool) -> None:
    """Write what `numpy.load(..., allow_pickle=False)` reads; the same arrays give the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, compresslevel=_QUICK) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _stacked(gop: Gop, fields: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """`fields` as one array; only a decoded frame shows for certain how large they are."""
    if any(field.shape != fields[-1].shape for field in fields):
        fields = [gop.motion(t) for t in range(gop.num_frames)]
    return np.stack(fields)


def _described(gop: Gop, *, index: int, first_time_s: float, source: str) -> Arrays:
    width_px, height_px = gop.source_size_px
    return {
        "format_version": np.array(FORMAT_VERSION),
        "source": np.array(shown(source)),
        "route": np.array(gop.route),
        "times_s": np.array(gop.times_s) - first_time_s,
        "gop_index": np.array([index]),
        "iframe_index": np.zeros(gop.num_frames, np.int64),
        "width_px": np.array(gop.width_px),
        "height_px": np.array(gop.height_px),
        "motion_width_px": np.array(width_px),
        "motion_height_px": np.array(height_px),
        "motion_unit_px": np.array(MOTION_UNIT_PX),
        "motion_margins": np.array(gop.field_margins),
    }


def _form(arrays: Arrays) -> tuple[object, ...]:
    """Equal for arrays that can be in one file."""
    shapes = tuple(arrays[kind].shape[1:] for kind in KINDS if kind in arrays)
    return str(arrays["route"]), arrays["width_px"].item(), arrays["height_px"].item(), shapes


def _joined(gops: Sequence[Arrays]) -> Arrays:
    first = gops[0]
    joined = {name: np.concatenate([gop[name] for gop in gops])
              for name in (*_OF_FRAMES, *_OF_GOPS) if name in first}
    joined["iframe_index"] = np.repeat(np.arange(len(gops)), [gop["times_s"].size for gop in gops])
    return {name: joined.get(name, first[name]) for name in KEYS if name in first}
