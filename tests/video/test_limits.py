"""How much a source may ask for, and how a user says that it may ask for more."""

from __future__ import annotations

import pytest

from edgepkd.errors import ConfigError, LimitError, SourceError, UsageError
from edgepkd.video.limits import LIMIT_NAMES, Limits, limits_of


@pytest.mark.parametrize("size", [(7680, 4320), (8192, 4320), (4320, 8192), (5632, 4224)])
def test_real_pictures_are_within_the_defaults(size: tuple[int, int]) -> None:
    Limits().check_picture("a.mp4", *size)
    with pytest.raises(LimitError, match=r"too many pixels"):
        Limits(pixels=size[0] * size[1] - 1).check_picture("a.mp4", *size)


@pytest.mark.parametrize(("size", "limit", "got"), [
    ((16_000, 16_000), "pixels", 256_000_000), ((16, 16_400), "side_px", 16_400),
    ((40_000, 1), "side_px", 40_000)])
def test_too_large_a_picture_is_refused_by_name_and_number(
    size: tuple[int, int], limit: str, got: int
) -> None:
    with pytest.raises(LimitError, match=f"a.mp4 has pictures of {size[0]}x{size[1]}") as caught:
        Limits().check_picture("a.mp4", *size)
    assert isinstance(caught.value, SourceError)
    assert f"({got}); allowed: {getattr(Limits(), limit)}, the limit {limit}" in str(caught.value)
    # What the hint says is enough.
    raised = limits_of([str(caught.value.hint).rstrip(".").rpartition("--limit ")[2]])
    assert getattr(raised, limit) == got
    raised.check(limit, got, what="it")


def test_each_limit_can_be_raised_by_its_name() -> None:
    raised = limits_of([f"{name}={number}" for number, name in enumerate(LIMIT_NAMES, 5)],
                       playlists=True)
    assert [getattr(raised, name) for name in LIMIT_NAMES] == [
        number for number, _ in enumerate(LIMIT_NAMES, 5)]
    assert raised.playlists
    assert limits_of([]) == Limits()


@pytest.mark.parametrize("text", [
    "", "pixels", "pixels=", "pixels=-1", "pixels=1e9", "pixels=nan", "playlists=1", "px=5", "=5",
    "pixels=\u0663"])
def test_what_is_no_limit_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"--limit is .*; allowed: NAME=NUMBER.*pixels"):
        limits_of([text])


@pytest.mark.parametrize("text", ["pixels=0", "streams=" + "9" * 30])
def test_a_limit_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"limit \w+ is \d+; allowed: a whole number, 1 <= value"):
        limits_of([text])
