"""Verdicts on made-up logits: what many clips show is said, what few clips suggest is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.logits.metrics import Interval
from edgepkd.logits.verdicts import (
    at_chance,
    cautious_interval,
    chance,
    constant_answer,
    judge_cascade,
    points,
    shortfall,
    worth_of_networks,
)

NAMES = ("bend", "jump", "walk")


def exits(labels: Any, *right: int) -> np.ndarray:
    """Logits [N, 4, 3]: exit k is right on the first `right[k]` clips, else one label off."""
    logits = np.zeros((len(labels), 4, 3))
    for k, count in enumerate(right):
        wrong = np.arange(len(labels)) >= count
        logits[np.arange(len(labels)), k, (labels + wrong) % 3] = 2.0
    return logits


def alone(number: int) -> list[str]:
    """Every clip a group of its own."""
    return [str(i) for i in range(number)]


def test_chance_is_the_most_frequent_label() -> None:
    assert chance(np.array([0, 0, 2, 1])) == 0.5


def test_a_network_is_judged_by_its_best_exit() -> None:
    labels = np.arange(60) % 3
    worth, = worth_of_networks({"mv": exits(labels, 20, 50, 30, 10)}, labels, alone(60))
    assert (worth.best_exit, worth.top1.value, worth.chance) == (2, 50 / 60, 1 / 3)
    assert worth.beats_chance


@pytest.mark.parametrize(("right", "said"), [
    (10, "mv: 16.7 % [9.3, 28.0] at its best exit, mv_1; no better than chance (33 %)"),
    (25, "mv: 41.7 % [29.1, 55.1] at its best exit, mv_1; not told from chance by 60 clips (33 %)"),
    (40, None),
])
def test_a_network_at_chance_is_named_with_its_interval(right: int, said: str | None) -> None:
    labels = np.arange(60) % 3
    logits = {"mv": exits(labels, right, 0, 0, 0), "iframe": exits(labels, 0, 0, 0, 60)}
    found = at_chance(logits, labels, ["a"] * 60)  # one group: clips are what is counted
    assert [text.split(" [")[0] for text in found] == (
        [] if said is None else [said.split(" [")[0]])
    assert said is None or found[0].split("]")[1] == said.split("]")[1]


def test_ten_groups_that_differ_widen_the_interval() -> None:
    labels = np.arange(60) % 3
    logits = {"mv": exits(labels, 32, 0, 0, 0)}  # 53 %: five groups all right, the others not
    assert at_chance(logits, labels, alone(60)) == ()
    said, = at_chance(logits, labels, [f"g{i // 6}" for i in range(60)])
    assert "not told from chance" in said


def test_a_constant_answer_is_named() -> None:
    labels = np.arange(40) % 3
    answers = np.ones(40, int)
    said = constant_answer(answers, labels, of="the full chain", label_names=NAMES)
    assert said == ("the full chain answers 'jump' for 100.0 % of 40 clips, of which 32.5 % are;"
                    " allowed: less than 95 %")
    answers[:2] = 0
    assert constant_answer(answers, labels, of="it", label_names=NAMES) is not None  # 95 %
    answers[:3] = 0
    assert constant_answer(answers, labels, of="it", label_names=NAMES) is None


@pytest.mark.parametrize(("clips", "is_said"), [(2, False), (4, False), (10, False), (12, True)])
def test_a_constant_takes_a_dozen_clips_of_two_labels(clips: int, is_said: bool) -> None:
    said = constant_answer(np.zeros(clips, int), np.arange(clips) % 2, of="it", label_names=NAMES)
    assert (said is not None) == is_said


def test_clips_of_one_label_may_get_one_answer() -> None:
    assert constant_answer(np.zeros(40, int), np.zeros(40, int), of="it", label_names=NAMES) is None


@pytest.mark.parametrize(("lost", "clips", "is_shown"), [
    (3, 3, False), (2, 20, False), (3, 20, False), (7, 20, True), (20, 20, True), (6, 200, True)])
def test_a_loss_is_shown_by_as_many_clips_as_an_exact_test_wants(
    lost: int, clips: int, is_shown: bool
) -> None:
    found = cautious_interval((np.arange(clips) < lost).astype(float), alone(clips))
    assert found.value == lost / clips
    assert (found.low > 0) == is_shown


def test_the_same_answers_differ_by_nothing() -> None:
    found = cautious_interval(np.zeros(20), ["a"] * 20)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_ten_groups_count_and_two_do_not() -> None:
    values = (np.arange(60) < 18).astype(float)  # three groups of ten lost all
    by_ten = cautious_interval(values, [f"g{i // 6}" for i in range(60)])
    assert by_ten.low < 0 < cautious_interval(values, alone(60)).low
    assert cautious_interval(values, [f"g{i // 30}" for i in range(60)]).low > 0


def test_a_cascade_is_held_against_its_best_part() -> None:
    labels = np.zeros(40, int)
    parts = {"mv_1": (np.arange(40) >= 10).astype(int), "mv": (np.arange(40) >= 30).astype(int)}
    found = shortfall((np.arange(40) >= 15).astype(int), parts, labels, alone(40), of="the chain")
    assert (found.best, found.best_network, found.difference.value) == ("mv", "mv", -15 / 40)
    assert found.is_shown
    assert str(found).startswith("the chain is right 37.5 [")
    assert "points less often than mv alone (75.0 % of 40 clips)" in str(found)
    assert not shortfall(parts["mv"], parts, labels, alone(40), of="it").is_shown


def test_points_can_be_turned_round() -> None:
    interval = Interval(-0.1, -0.3, 0.05, 10, 10)
    assert points(interval) == "-10.0 [-30.0, 5.0]"
    assert points(interval, sign=-1) == "10.0 [-5.0, 30.0]"


# ---- a whole cascade


ORDER: Order = ("mv", "iframe")
LABELS = np.arange(60) % 3


def weights(mv: float, iframe: float) -> WiseWeights:
    vectors = [(mv,) * min(k, 4) + (iframe,) * max(k - 4, 0) for k in range(1, 9)]
    return WiseWeights(ORDER, tuple(vectors))


def judged(wise: WiseWeights, *, policy: ExitPolicy | None = None) -> Any:
    logits: Any = {"mv": exits(LABELS, 50, 50, 50, 50), "iframe": exits(LABELS, 5, 5, 5, 5)}
    return judge_cascade(logits, LABELS, alone(60), weights=wise, policy=policy, label_names=NAMES)


def test_weights_that_follow_the_network_that_knows_nothing_are_refused() -> None:
    assert judged(weights(1.0, 0.1)).words == ()
    found = judged(weights(0.1, 1.0))
    assert [gap.best_network for gap in found.shortfalls] == ["mv"]
    assert found.constant == ()
    assert found.words[0].startswith("the full chain, order mv,iframe, is right 75.0 [")


def test_weights_of_nothing_are_a_constant() -> None:
    found = judged(weights(0.0, 0.0))
    assert found.constant[0].startswith("the full chain answers 'bend' for 100.0 % of 60 clips")


def test_early_exits_are_judged_beside_the_full_chain() -> None:
    never = ExitPolicy.constant(ORDER, threshold=1.0)
    assert judged(weights(1.0, 0.1), policy=never).words == ()
    both = judged(weights(0.1, 1.0), policy=never).shortfalls
    assert [gap.of.split(",")[0] for gap in both] == [
        "the full chain", "the cascade with early exits"]
