"""How a bundle answers and how sources are read: what is refused, what follows from what."""

from __future__ import annotations

from typing import Any

import pytest

from edgepkd.config import ClipSpec
from edgepkd.errors import ConfigError, UsageError
from edgepkd.runtime.settings import ModelConfig, ReadConfig


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"static": True, "threshold": 0.5}, UsageError, "static goes with threshold"),
    ({"static": True, "max_exit": 3}, UsageError, "static goes with threshold"),
    ({"exit_rule": lambda *_: True, "static": True}, UsageError, "exit_rule goes with"),
    ({"threshold": 1.5}, ConfigError, "threshold is 1.5; allowed: 0..1"),
    ({"threshold": float("nan")}, ConfigError, "threshold is nan"),
    ({"max_exit": 0}, ConfigError, "max_exit is 0; allowed: 1 or more"),
    ({"threads": 0}, ConfigError, "threads is 0"),
    ({"backend": "../x"}, ConfigError, "backend is '../x'"),
])
def test_how_a_bundle_answers(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(("settings", "message"), [
    ({"clips": 0}, "clips is 0; allowed: 1 or more"),
    ({"clip_frames": -1}, "clip_frames is -1"),
    ({"stride_frames": 0}, "stride_frames is 0"),
    ({"route": "fast"}, "route is 'fast'; allowed: auto, native, normalize"),
    ({"fps": 0}, "fps is 0"),
])
def test_how_sources_are_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReadConfig(**settings)


@pytest.mark.parametrize(("settings", "words"), [
    ({}, "policy"), ({"threshold": 0.9}, "threshold 0.9"), ({"static": True}, "static"),
    ({"max_exit": 4}, "policy, max exit 4"), ({"exit_rule": lambda *_: True}, "own rule"),
])
def test_the_rule_in_words(settings: dict[str, Any], words: str) -> None:
    assert str(ModelConfig(**settings)) == words


@pytest.mark.parametrize(("settings", "frames", "stride"), [
    ({}, 60, 30), ({"clip_frames": 24}, 24, 24), ({"stride_frames": 12}, 60, 12),
    ({"clip_frames": 24, "stride_frames": 12}, 24, 12),
])
def test_the_stride_follows_the_length(
    settings: dict[str, Any], frames: int, stride: int
) -> None:
    bundle = ClipSpec(clip_frames=60, stride_frames=30)
    spec = ReadConfig(**settings).clip_spec(bundle)
    assert (spec.clip_frames, spec.stride_frames) == (frames, stride)
    assert spec.gop_frames == bundle.gop_frames
