"""How long training takes, before it starts: measured steps times how many there will be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import Sample, read_index
from edgepkd.pipeline import estimate
from edgepkd.pipeline.estimate import (
    DecodePace,
    NetworkTime,
    Pace,
    duration,
    made_up_clip,
    measure_decoding,
    measure_pace,
    scaled,
    time_lines,
    time_of,
    total_s,
)
from edgepkd.training.cache import cache_spec, cached_clip
from edgepkd.training.execution import Execution
from edgepkd.training.recipe import changed_recipe, load_train_recipe
from tests.training.tiny_set import make_set, write_recipe

SMALL = changed_recipe(load_train_recipe("small"), {
    "backbones.mv.epochs": 10, "backbones.mv.batch_clips": 8, "exits.epochs": 20,
    "exits.num_views": 4, "exits.batch_views": 64})
PACE = Pace(step_s=2.0, view_s=0.5, exits_step_s=0.1)


def test_steps_are_those_that_training_will_do() -> None:
    """50 clips in batches of 8 are 6 steps an epoch, and 200 views 4."""
    time = time_of(SMALL, "mv", PACE, num_clips=50)
    assert (time.num_steps, time.trunk_s) == (60, 120)
    assert time.exits_s == pytest.approx(200 * 0.5 + 20 * 4 * 0.1)
    online = time_of(SMALL, "mv", PACE, num_clips=50, online=True)
    assert online.exits_s == pytest.approx(200 * 20 * 0.5 + 20 * 4 * 0.1)
    assert time_of(SMALL, "mv", PACE, num_clips=3).num_steps == 10


def test_other_presets_are_scaled_by_what_a_step_of_them_costs() -> None:
    assert scaled(PACE, SMALL, SMALL, "mv") == PACE
    more = changed_recipe(SMALL, {"backbones.mv.batch_clips": 16, "exits.batch_views": 32})
    assert scaled(PACE, SMALL, more, "mv") == Pace(4.0, 0.5, 0.05)
    segments = SMALL.backbones["mv"].train_segments
    longer = changed_recipe(SMALL, {"backbones.mv.train_segments": 2 * segments})
    assert scaled(PACE, SMALL, longer, "mv") == Pace(4.0, 1.0, 0.1)
    wider = changed_recipe(SMALL, {"backbones.mv.width": 2 * SMALL.backbones["mv"].width})
    assert 3 < scaled(PACE, SMALL, wider, "mv").step_s / PACE.step_s < 4.1


def test_the_presets_take_a_third_and_three_times_the_steps() -> None:
    steps = [time_of(load_train_recipe(name), "residual", PACE, num_clips=100).num_steps
             for name in ("quick", "small", "best")]
    assert steps[0] < 0.6 * steps[1] < 0.3 * steps[2]


def test_what_is_said_has_a_line_a_network_and_the_total() -> None:
    times = {"mv": NetworkTime(60, 120, 30), "iframe": NetworkTime(100, 3000, 600)}
    decoding = DecodePace(48, 200)
    torch.set_num_threads(1)
    said = time_lines(SMALL, times, decoding, others={"quick": 600, "best": 9000})
    assert said == (
        "small: about 66 min on this machine (1 thread), from a few steps of each network",
        "  decode    48 clips: 3 min",
        "  mv        60 steps: 2 min, then exits: 30 s",
        "  iframe    100 steps: 50 min, then exits: 10 min",
        "other presets: quick 10 min, best 2.5 h")
    assert max(map(len, said)) <= 80
    said = time_lines(SMALL, times, DecodePace(0, 0), others={}, exits_only=True)
    assert said[1:] == ("  mv        exits: 30 s", "  iframe    exits: 10 min")
    assert total_s(times, decoding) == 3950
    assert total_s(times, decoding, exits_only=True) == 830


@pytest.mark.parametrize(("seconds", "text"), [
    (0.2, "1 s"), (42.4, "42 s"), (100, "2 min"), (3600, "60 min"), (5500, "1.5 h"),
    (90_000, "25 h")])
def test_durations_are_rounded_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_made_up_clip_is_one_that_networks_take() -> None:
    clip = made_up_clip()
    for modality in MODALITIES:
        assert len(clip.pixels[modality]) == len(clip.places[modality])


@pytest.mark.slow
def test_steps_are_measured_without_moving_random_numbers(tmp_path: Path) -> None:
    recipe = load_train_recipe(str(write_recipe(tmp_path / "tiny.toml")))
    before = torch.get_rng_state()
    pace = measure_pace(recipe, "mv", num_classes=2, execution=Execution())
    assert min(pace.step_s, pace.view_s, pace.exits_step_s) > 0
    assert measure_pace(recipe, "iframe", num_classes=3, execution=Execution(),
                        trunk=False).step_s == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_slow_steps_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_train_recipe(str(write_recipe(tmp_path / "tiny.toml")))
    seen: list[int] = []
    real = estimate._Seconds.a_step

    def counted(log: estimate._Seconds) -> float:
        seen.append(len(log.seconds))
        return real(log)

    monkeypatch.setattr(estimate._Seconds, "a_step", counted)
    measure_pace(recipe, "mv", num_classes=2, execution=Execution())
    monkeypatch.setattr(estimate, "_MOST_S", 0.0)
    assert measure_pace(recipe, "mv", num_classes=2, execution=Execution()).step_s > 0
    assert seen == [3, 3, 1, 1]


@pytest.mark.slow
def test_a_large_batch_is_scaled_up_from_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_train_recipe(str(write_recipe(tmp_path / "tiny.toml")))
    large = changed_recipe(recipe, {"backbones.mv.batch_clips": 4000})
    monkeypatch.setattr(estimate._Seconds, "a_step", lambda _: 1.0)
    monkeypatch.setattr(estimate, "_MOST_S", 0.0)
    most = estimate._MOST_PIXELS // 32**2
    pace = measure_pace(large, "mv", num_classes=2, execution=Execution())
    assert pace.step_s == pytest.approx(4000 / most)


@pytest.mark.slow
def test_decoding_is_measured_on_clips_that_are_needed_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = read_index(make_set(tmp_path / "data") / "index.csv")
    spec = cache_spec(load_train_recipe(str(write_recipe(tmp_path / "tiny.toml"))))

    def measured(some: tuple[Sample, ...]) -> DecodePace:
        return measure_decoding(some, spec=spec, folder=tmp_path / "cache", jobs=1)

    assert measured(samples) == DecodePace(8, 0.0)
    monkeypatch.setattr(estimate, "_WORTH_MEASURING", 4)
    pace = measured(samples)
    assert (pace.num_clips, pace.seconds > 0) == (8, True)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    for sample in samples:
        cached_clip(sample, spec=spec, folder=tmp_path / "cache")
    assert measured(samples) == DecodePace(0, 0.0)
    assert measured(tuple(replace(s, sha256="") for s in samples)) == DecodePace(0, 0.0)
