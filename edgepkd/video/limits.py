"""How much a source may ask for before it is refused: a few kilobytes can ask for gigabytes.

The defaults let real videos pass (8K, hours, many programmes in one stream). Each limit can be
raised by who trusts the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from edgepkd.config import check
from edgepkd.errors import LimitError, UsageError

_OPTION = "--limit"


@dataclass(frozen=True)
class Limits:
    """What a source may ask for."""

    pixels: int = 40_000_000
    """Of one picture, width times height; 8K has 33 to 35 million."""
    side_px: int = 16_384
    """Longer side of a picture."""
    streams: int = 1_000
    """In one file: pictures, sound, subtitles, data."""
    header_bytes: int = 1 << 20
    """Codec settings that a container gives before the first picture (`extradata`)."""
    samples: int = 2_000_000
    """Frames that the index of an MP4 claims without bytes of the file behind them."""
    packets: int = 10_000
    """In a row that give no picture."""
    idle_bytes: int = 512 << 20
    """Read from a pipe without coming upon a packet of the video."""
    copied_bytes: int = 64 << 30
    """Of an MP4 that comes through a pipe, which is copied to the disk before it is read."""
    playlists: bool = False
    """True: a playlist, concat script or SDP may open the files and addresses that it names."""

    def __post_init__(self) -> None:
        for name in LIMIT_NAMES:
            value = getattr(self, name)
            check(type(value) is int and 1 <= value < 1 << 62, f"limit {name}", got=value,
                  allowed="a whole number, 1 <= value < 2**62")

    def check_picture(self, name: str, width_px: int, height_px: int) -> None:
        """Refuse a picture of the source called `name` that is too large.

        Raises:
            LimitError: it is.
        """
        size = f"pictures of {width_px}x{height_px}"
        self.check("pixels", width_px * height_px, what=f"{name} has {size}, too many pixels")
        self.check("side_px", max(width_px, height_px), what=f"{name} has {size}, too long a side")

    def check(self, limit: str, got: int, *, what: str) -> None:
        """Refuse a source if it has more than `limit` allows; `what` says so in words.

        Raises:
            LimitError: it has.
        """
        if got > getattr(self, limit):
            raise self.refusal(limit, f"{what} ({got})", wanted=got)

    def refusal(self, limit: str, what: str, *, wanted: int | None = None) -> LimitError:
        """Return what to raise; `wanted` is the limit that would do, twice as much if None."""
        allowed = getattr(self, limit)
        wanted = wanted or 2 * allowed
        return LimitError(f"{what}; allowed: {allowed}, the limit {limit}.",
                          hint=f"If you trust the source: {_OPTION} {limit}={wanted}.")


LIMIT_NAMES: tuple[str, ...] = tuple(
    field.name for field in fields(Limits) if field.name != "playlists")
DEFAULT_LIMITS = Limits()


def limits_of(texts: Iterable[str], *, playlists: bool = False) -> Limits:
    """Return the defaults, changed as `texts` say: 'pixels=80000000'.

    Raises:
        UsageError: a text names no limit, or no whole number of 1 or more.
    """
    values: dict[str, int] = {}
    for text in texts:
        limit, _, number = text.partition("=")
        if limit not in LIMIT_NAMES or not (number.isascii() and number.isdigit()):
            raise UsageError(f"{_OPTION} is {text!r}; allowed: NAME=NUMBER, with one of the names "
                             f"{', '.join(LIMIT_NAMES)}.", hint=f"For example {_OPTION} "
                             f"pixels={2 * DEFAULT_LIMITS.pixels}.")
        values[limit] = int(number[:20])
    return Limits(**values, playlists=playlists)
