"""`data synth` as a function: a set that is whole, and the same from the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.datasets.index import read_index
from edgepkd.errors import ConfigError
from edgepkd.pipeline.data import DataSummary
from edgepkd.pipeline.synth import SynthConfig, synth
from tests.datasets.sets import contents, problems


@pytest.mark.slow
def test_the_set_verifies_and_is_made_again_alike(tmp_path: Path) -> None:
    config = SynthConfig(tmp_path / "set", num_classes=3, num_clips=14, clip_frames=4, seed=5)
    *_, summary = synth(config)
    assert isinstance(summary, DataSummary)
    assert summary.num_clips == 14
    assert problems(config.folder, decode=True) == []
    samples = read_index(config.folder / "index.csv")
    assert {s.group for s in samples} == {f"scene0{n}" for n in range(5)}
    first = contents(config.folder)
    *_, _ = synth(config)
    assert contents(config.folder)["index.csv"] == first["index.csv"]
    *_, _ = synth(replace(config, num_clips=12))
    assert problems(config.folder) == []


@pytest.mark.parametrize(("change", "message"), [
    ({"num_classes": 9}, r"classes is 9; allowed: 2\.\.8"), ({"num_clips": 8}, "clips is 8"),
    ({"clip_frames": 1}, "clip_frames is 1"), ({"seed": -1}, "seed is -1"),
])
def test_settings_are_checked(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SynthConfig(Path("set")), **change)  # type: ignore[arg-type]
