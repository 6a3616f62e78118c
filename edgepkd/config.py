"""Settings that cross rooms: frozen dataclasses, units in names, checks in `__post_init__`."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

from edgepkd.errors import ConfigError

Modality = Literal["mv", "residual", "iframe"]
MODALITIES: tuple[Modality, ...] = ("mv", "residual", "iframe")
NUM_CHANNELS: dict[Modality, int] = {"mv": 2, "residual": 3, "iframe": 3}
MIN_FPS, MAX_FPS = 0.001, 1000
# What is beyond these asks for memory that no device has; a bundle may come from a stranger.
MAX_SEGMENTS = 1000
MAX_RESIZE_PX = 4096
MAX_INPUT_VALUES = 1 << 27
"""Of one modality's input for one clip."""
MAX_GOP_FRAMES = 1000
MAX_SHORT_SIDE_PX = 16384
NUM_EXITS = 4
"""Exits of one network: internal classifiers after stages 1..3 and the network's own classifier."""

SamplingRule = Literal["centre", "gop"]
Route = Literal["auto", "native", "normalize"]
Arithmetic = Literal["subpel", "coviar"]

_T = TypeVar("_T")
_MAX_QUOTED = 200
_type_hints: dict[type, Mapping[str, Any]] = {}


def quoted(got: object) -> str:
    """`got` as a message shows it: its repr, cut where it is long."""
    try:
        text = repr(got)
    except ValueError:  # of an integer with more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED - 1]}…"


def check(condition: bool, setting: str, *, got: object, allowed: str) -> None:
    """Raise ConfigError unless `condition` holds.

    Raises:
        ConfigError: naming `setting`, the value got and the values allowed.
    """
    if not condition:
        raise ConfigError(f"{setting} is {quoted(got)}; allowed: {allowed}.")


def check_fps(fps: float | Fraction | None) -> None:
    """Refuse what is no frame rate; None, 'not given', is fine.

    Raises:
        ConfigError: it is below MIN_FPS, or above MAX_FPS.
    """
    check(fps is None or (math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS), "fps", got=fps,
          allowed=f"frames per second, {MIN_FPS} to {MAX_FPS}")


def type_hints(cls: type) -> Mapping[str, Any]:
    """Types of a dataclass's fields; found once, for files that hold many of them."""
    if cls not in _type_hints:
        _type_hints[cls] = typing.get_type_hints(cls)
    return _type_hints[cls]


def from_mapping(cls: type[_T], values: Mapping[str, Any], *, where: str) -> _T:
    """Build dataclass `cls` from plain `values` (as read from TOML or JSON).

    Raises:
        ConfigError: an unknown or missing key, or a value the dataclass refuses; names `where`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    check(not unknown, f"{where}: key {', '.join(unknown)[:_MAX_QUOTED]}", got="unknown",
          allowed=", ".join(sorted(fields)))
    missing = [
        name for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    check(not missing, f"{where}: key {', '.join(missing)}", got="missing", allowed="required keys")
    hints = type_hints(cls)
    converted = {
        name: tuple(value) if typing.get_origin(hints[name]) is tuple else value
        for name, value in values.items()
    }
    return cls(**converted)


LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a field that came after runs were written, whose default is what was done before it.
`plain_facts` leaves it out as long as it says that: hashes that name old results stay valid."""


def plain_facts(values: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, without fields of LATER that have their default; for hashes."""
    return {f.name: _plain(getattr(values, f.name)) for f in dataclasses.fields(values)
            if not (f.metadata.get("later") and getattr(values, f.name) == f.default)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain_facts(value)
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class InputSpec:
    """How one modality of a clip reaches its network (paper.md 1.3 to 1.5)."""

    modality: Modality
    num_segments: int
    """Temporal segments per clip; their logits are averaged."""
    resize_px: int = 256
    """The picture is squashed to this square before cropping."""
    crop_px: int = 224
    """Side of the square network input, cut from the centre at test time."""

    def __post_init__(self) -> None:
        check(self.modality in MODALITIES, "modality", got=self.modality,
              allowed=", ".join(MODALITIES))
        check(1 <= self.num_segments <= MAX_SEGMENTS, "num_segments", got=self.num_segments,
              allowed=f"1..{MAX_SEGMENTS}")
        check(32 <= self.resize_px <= MAX_RESIZE_PX, "resize_px", got=self.resize_px,
              allowed=f"32..{MAX_RESIZE_PX}")
        check(32 <= self.crop_px <= self.resize_px, "crop_px", got=self.crop_px,
              allowed=f"32..resize_px ({self.resize_px})")
        values = self.num_segments * self.num_channels * self.crop_px**2
        check(values <= MAX_INPUT_VALUES, "num_segments x channels x crop_px x crop_px",
              got=values, allowed=f"up to {MAX_INPUT_VALUES}")

    @property
    def num_channels(self) -> int:
        """Channels of the network input: 2 for motion vectors, else 3."""
        return NUM_CHANNELS[self.modality]


@dataclass(frozen=True)
class ClipSpec:
    """How a stream is cut into clips and which frames of a clip are looked at."""

    clip_frames: int = 60
    """Frames in one clip; the last clip of a file may be shorter."""
    stride_frames: int = 60
    """Frames from one clip's start to the next one's, rounded to whole GOPs."""
    gop_frames: int = 12
    """Longest distance between anchors: longer GOPs get virtual anchors (decode.md 4)."""
    sampling: SamplingRule = "centre"
    """'centre': centre of each temporal segment, CoViAR's test rule; 'gop': one GOP per segment,
    every modality from that GOP at `position`, TEAM-Net's rule."""
    position: int = 5
    """GOP position used by the 'gop' rule."""

    def __post_init__(self) -> None:
        check(2 <= self.gop_frames <= MAX_GOP_FRAMES, "gop_frames", got=self.gop_frames,
              allowed=f"2..{MAX_GOP_FRAMES}")
        check(self.clip_frames >= 1, "clip_frames", got=self.clip_frames, allowed="1 or more")
        check(self.stride_frames >= 1, "stride_frames", got=self.stride_frames,
              allowed="1 or more")
        check(self.sampling in ("centre", "gop"), "sampling", got=self.sampling,
              allowed="centre, gop")
        check(1 <= self.position < self.gop_frames, "position", got=self.position,
              allowed=f"1..{self.gop_frames - 1}")


@dataclass(frozen=True)
class DecodeSpec:
    """How compressed-domain signals are made from a stream (decode.md 4)."""

    gop_frames: int = 12
    """Longest distance between anchors."""
    grid_px: Literal[1, 4, 8] = 8
    """Cell size of the accumulated motion field at source resolution; 8 loses no vector."""
    arithmetic: Arithmetic = "subpel"
    """'subpel' keeps quarter pixels; 'coviar' truncates to whole pixels like the reference."""
    pixels: bool = True
    """False: motion only, P-frame pixels are not reconstructed (refused where not legal)."""
    max_short_side_px: int = 288
    """Sources with a longer short side are worked on at an output grid of 256 px short side."""

    def __post_init__(self) -> None:
        check(2 <= self.gop_frames <= MAX_GOP_FRAMES, "gop_frames", got=self.gop_frames,
              allowed=f"2..{MAX_GOP_FRAMES}")
        check(self.grid_px in (1, 4, 8), "grid_px", got=self.grid_px, allowed="1, 4, 8")
        check(self.arithmetic in ("subpel", "coviar"), "arithmetic", got=self.arithmetic,
              allowed="subpel, coviar")
        check(16 <= self.max_short_side_px <= MAX_SHORT_SIDE_PX, "max_short_side_px",
              got=self.max_short_side_px, allowed=f"16..{MAX_SHORT_SIDE_PX}")


Inputs = Mapping[Modality, InputSpec]
"""How each modality reaches its network."""
