"""Settings: ranges are checked, unknown and missing keys are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest

from edgepkd.config import (
    LATER,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    facts_of,
    from_mapping,
)
from edgepkd.errors import ConfigError


@pytest.mark.parametrize(
    ("cls", "values", "named"),
    [
        (InputSpec, {"modality": "sound", "num_segments": 1}, "modality is 'sound'"),
        (InputSpec, {"modality": "mv", "num_segments": 0}, "num_segments is 0"),
        (InputSpec, {"modality": "mv", "num_segments": 1, "crop_px": 300}, "crop_px is 300"),
        (InputSpec, {"modality": "residual", "num_segments": 2, "stack": True},
         "stack is 'true for residual'; allowed: true only for mv"),
        (InputSpec, {"modality": "mv", "num_segments": 800, "resize_px": 400, "crop_px": 400,
                     "stack": True}, "num_segments x channels x crop_px x crop_px is 256000000"),
        (ClipSpec, {"gop_frames": 1}, "gop_frames is 1"),
        (ClipSpec, {"position": 12}, "position is 12"),
        (ClipSpec, {"sampling": "random"}, "sampling is 'random'"),
        (DecodeSpec, {"grid_px": 3}, "grid_px is 3"),
        (DecodeSpec, {"arithmetic": "float"}, "arithmetic is 'float'"),
    ],
)
def test_out_of_range_is_refused_by_name(cls: type, values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        cls(**values)


def test_mapping_with_an_unknown_key_names_the_place_and_the_allowed_keys() -> None:
    with pytest.raises(ConfigError, match=r"x\.toml: key speed is 'unknown'.*clip_frames"):
        from_mapping(ClipSpec, {"speed": 1}, where="x.toml")


def test_mapping_with_a_missing_key_names_it() -> None:
    with pytest.raises(ConfigError, match="num_segments is 'missing'"):
        from_mapping(InputSpec, {"modality": "mv"}, where="x.toml")


@dataclass(frozen=True)
class Inner:
    size: int
    speed: int = field(default=1, metadata=LATER)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: Mapping[str, Inner]
    other: Inner = field(default=Inner(3), metadata=LATER)


def test_facts_are_those_of_before_a_field_came_unless_it_says_otherwise() -> None:
    plain = Outer(Inner(2), {"a": Inner(4)})
    assert facts_of(plain) == {"inner": {"size": 2}, "several": {"a": {"size": 4}}}
    changed = Outer(Inner(2, 5), {"a": Inner(4, 6)}, Inner(3, 7))
    assert facts_of(changed) == asdict(changed)
    assert facts_of(changed)["other"] == {"size": 3, "speed": 7}


def test_channels_follow_the_modality() -> None:
    assert InputSpec(modality="mv", num_segments=1).num_channels == 2
    assert InputSpec(modality="iframe", num_segments=1).num_channels == 3


def test_stacked_segments_are_channels_of_one_pass() -> None:
    apart = InputSpec("mv", 8, resize_px=64, crop_px=64)
    stacked = InputSpec("mv", 8, resize_px=64, crop_px=64, stack=True)
    assert (apart.num_passes, apart.frames_per_pass, apart.input_shape) == (8, 1, (8, 2, 64, 64))
    assert (stacked.num_passes, stacked.frames_per_pass) == (1, 8)
    assert stacked.input_shape == (1, 16, 64, 64)


def test_facts_leave_out_what_came_later_and_is_not_used() -> None:
    @dataclass(frozen=True)
    class Outer:
        one: InputSpec
        many: dict[str, tuple[InputSpec, ...]]

    apart, stacked = InputSpec("mv", 8), InputSpec("mv", 8, stack=True)
    before = {"modality": "mv", "num_segments": 8, "resize_px": 256, "crop_px": 224}
    assert facts_of(apart) == before
    assert facts_of(stacked) == asdict(stacked) == {**before, "stack": True}
    assert facts_of(Outer(apart, {"a": (apart, stacked)})) == {
        "one": before, "many": {"a": (before, {**before, "stack": True})}}
    assert facts_of(ClipSpec()) == asdict(ClipSpec())
