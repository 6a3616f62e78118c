"""Flatness is measured on a bounded draw of training clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.datasets.index import read_index
from edgepkd.errors import ConfigError, DataError
from edgepkd.pipeline.flatness import FlatnessConfig, measure_flatness
from edgepkd.pipeline.trained_run import TrainedRun, open_run
from tests.training.tiny_set import make_run, make_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "a", data, modalities=("mv",)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings(**changes: Any) -> FlatnessConfig:
    return FlatnessConfig(**{"num_clips": 3, "num_probes": 2, "steps": 1, **changes})


@pytest.mark.slow
def test_so_many_training_clips_the_same_for_the_same_seed(
    run: TrainedRun, data: Path, cache: Path
) -> None:
    samples = read_index(data / "index.csv")
    one, two = (measure_flatness(run, "mv", samples, config=settings(), cache=cache)
                for _ in range(2))
    assert (one.num_clips, one.trace, one.sharpness) == (3, two.trace, two.sharpness)
    all_ = measure_flatness(run, "mv", samples, config=settings(num_clips=99), cache=cache)
    assert all_.num_clips == sum(s.split == "train" for s in samples) == 4
    assert one.sharpness.worst_loss >= one.sharpness.loss


@pytest.mark.slow
def test_clips_that_cannot_be_read_are_passed_over(
    run: TrainedRun, data: Path, cache: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    samples = [s for s in read_index(data / "index.csv") if s.split == "train"]
    mixed = [replace(samples[0], path=broken, sha256=""), *samples[1:]]
    found = measure_flatness(run, "mv", mixed, config=settings(num_clips=4), cache=cache)
    assert found.num_clips == 3
    with pytest.raises(DataError, match="none of 1 training clips can be read"):
        measure_flatness(run, "mv", mixed[:1], config=settings(), cache=cache)


def test_without_training_clips_nothing_is_measured(
    run: TrainedRun, data: Path, cache: Path
) -> None:
    held_out = [s for s in read_index(data / "index.csv") if s.split != "train"]
    with pytest.raises(DataError, match="the training split, which has no clip here"):
        measure_flatness(run, "mv", held_out, config=settings(), cache=cache)


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_clips": 0}, "num_clips is 0"), ({"num_probes": 1}, "num_probes is 1; allowed: 2"),
    ({"steps": 0}, "steps is 0"), ({"epsilon": 0.0}, "epsilon is 0"),
])
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)
