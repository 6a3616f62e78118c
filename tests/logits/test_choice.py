"""Which weights are taken: made-up logits for which the right choice is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from edgepkd.cascade import Order, WiseWeights, prefix_logits
from edgepkd.config import Modality
from edgepkd.logits.choice import (
    Choice,
    CrossFit,
    Evidence,
    Track,
    best_exit,
    choose,
    fit_towards_sums,
    is_better,
    parts_of,
)
from edgepkd.logits.wise import Convex, fit_vector, in_order
from tests.logits.made_logits import make_doubtful

PAIR: Order = ("mv", "iframe")


def chosen(evidence: Evidence, order: Order = PAIR) -> Choice:
    return choose(CrossFit(evidence).tracks(order), evidence)


# ---- what is taken


def test_a_network_at_chance_that_is_loud_makes_wise_the_better_one() -> None:
    evidence = make_doubtful(num_clips=100, num_groups=8, worth={"mv": (1, 1), "iframe": (0, 3)})
    found = chosen(evidence)
    assert found.taken.kind == "wise"
    assert found.taken.weights.vectors[-1][3] > 3 * max(found.taken.weights.vectors[-1][4:])
    wise, sums = found.tracks["wise"], found.tracks["sums"]
    assert wise.right[:, -1].mean() > 0.7 > 0.5 > sums.right[:, -1].mean()
    assert found.why.startswith(f"WISE was better: {100 * wise.right[:, -1].mean():.1f} % against"
                                f" {100 * sums.right[:, -1].mean():.1f} % of plain sums")


def test_exits_that_are_worth_the_same_are_summed() -> None:
    """Weights fitted to them are noise, and lose to none."""
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    logits: Mapping[Modality, np.ndarray] = {
        m: 1.2 * np.eye(3)[labels][:, None] + rng.normal(size=(60, 4, 3)) for m in PAIR}
    groups = tuple(f"person{i % 6}" for i in range(60))
    evidence = Evidence(logits, labels, groups, parts_of(labels, groups), 3)
    found = chosen(evidence)
    assert found.taken.kind == "sums"
    assert found.taken.weights == WiseWeights.ones(PAIR)
    assert "against" in found.why
    fitted = choose(CrossFit(evidence, method=Convex(l2=0.0)).tracks(PAIR), evidence)
    assert fitted.tracks["wise"].losses.mean() > fitted.tracks["sums"].losses.mean()
    assert fitted.taken.kind == "sums"


@pytest.mark.parametrize(("clips", "groups", "why"), [
    (20, 1, "20 clips of at least 40, 1 groups of at least 3"),
    (48, 2, "2 groups of at least 3"), (20, 5, "20 clips of at least 40")])
def test_few_clips_are_summed_without_asking(clips: int, groups: int, why: str) -> None:
    """As they were not for 20 clips of one person: WISE and thresholds lost 5 to 11 points."""
    found = chosen(make_doubtful(num_clips=clips, num_groups=groups,
                                 worth={"mv": (1, 1), "iframe": (0, 3)}))
    assert found.taken.kind == "sums"
    assert why in found.why


def test_a_class_that_hardly_speaks_counts_as_few_clips() -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6, worth={"mv": (1, 1), "iframe": (0, 3)})
    assert evidence.shortage is None
    assert replace(evidence, num_classes=7).shortage == "0 clips of the rarest class of at least 3"


def test_what_is_asked_for_is_taken() -> None:
    evidence = make_doubtful(num_clips=20, num_groups=2, worth={"mv": (1, 1), "iframe": (0, 3)})
    assert "wise" not in {one.kind for one in CrossFit(evidence).tracks(PAIR)}
    tracks = CrossFit(evidence, take="wise").tracks(PAIR)
    assert choose(tracks, evidence, take="wise").taken.kind == "wise"
    assert choose(tracks, evidence, take="sums").taken.kind == "sums"


def track(losses: list[float], right: list[bool]) -> Track:
    rows = len(losses)
    return Track("wise", None, WiseWeights.ones(("mv",)), np.zeros((rows, 4, 2)),
                 np.tile(np.array(losses)[:, None], (1, 4)),
                 np.tile(np.array(right)[:, None], (1, 4)))


def test_better_is_by_more_than_the_standard_error_over_groups() -> None:
    groups = ("a", "a", "b", "b", "c", "c")
    zero = track([1.0] * 6, [True] * 6)
    assert is_better(track([0.9, 0.8] * 3, [True] * 6), zero, groups)
    one_group = track([0.1, 0.1, 1.0, 1.0, 1.0, 1.0], [True] * 6)  # gain 0.3, error 0.3
    assert not is_better(one_group, zero, groups)
    assert is_better(one_group, zero, tuple("abcdef"))
    assert not is_better(track([0.9] * 6, [True] * 6), zero, ("a",) * 6)
    wrong = track([0.5] * 6, [False, True] * 3)
    assert not is_better(wrong, zero, groups)


# ---- how it is cross-fitted


def test_no_clip_is_answered_by_weights_that_saw_its_part() -> None:
    evidence = make_doubtful(num_clips=40, num_groups=4, worth={"mv": (1, 1), "iframe": (0.5, 1)})
    before = CrossFit(evidence).tracks(PAIR)
    mine = evidence.parts == evidence.parts[7]
    flipped = np.where(mine, (evidence.labels + 1) % 6, evidence.labels)
    after = CrossFit(replace(evidence, labels=flipped)).tracks(PAIR)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(old.combined[mine], new.combined[mine])
        if old.kind == "wise":
            assert not np.allclose(old.combined[~mine], new.combined[~mine])


def test_plain_sums_are_the_sums_and_the_best_exit_is_one() -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6, worth={"mv": (1, 1), "iframe": (0, 3)})
    tracks = {one.kind: one for one in CrossFit(evidence).tracks(PAIR)}
    logits = in_order(evidence.logits, PAIR)
    sums = prefix_logits(logits, WiseWeights.ones(PAIR))
    np.testing.assert_allclose(tracks["sums"].combined, sums)
    assert tracks["best"].weights.vectors[-1] == (0, 0, 0, 1, 0, 0, 0, 0)
    assert best_exit(logits, evidence.labels).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(tracks["best"].combined[:, -1], logits[:, 3])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_a_strong_pull_gives_plain_sums_whatever_the_scale(scale: float) -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6, worth={"mv": (1, scale)}, noise=0.7)
    logits = evidence.logits["mv"]
    strong = fit_towards_sums(logits, evidence.labels, l2=1e4)
    np.testing.assert_allclose(strong, strong.mean(), rtol=1e-2)
    weak = fit_towards_sums(logits, evidence.labels, l2=1e-6)
    assert weak.std() > 0.2 * weak.mean()
    assert scale * weak[3] == pytest.approx(fit_vector(logits / scale, evidence.labels, l2=0.0)[3],
                                            rel=0.05)


def test_parts_keep_groups_whole_and_classes_apart() -> None:
    labels = np.repeat(np.arange(3), 12)
    groups = [f"{label}{i % 4}" for i, label in enumerate(labels)]  # a group has one class
    parts = parts_of(labels, groups)
    assert len(set(parts.tolist())) == 5
    assert all(len({parts[i] for i in range(36) if groups[i] == g}) == 1 for g in set(groups))
    for label in range(3):
        assert len(set(parts[labels == label].tolist())) == 4


def test_networks_are_the_parts_where_several_answered() -> None:
    labels = np.arange(6) % 2
    assert parts_of(labels, list("aabbcc"), [2, 2, 7, 7, 2, 2]).tolist() == [0, 0, 1, 1, 0, 0]
    assert len(set(parts_of(labels, list("aabbcc"), [1] * 6).tolist())) == 3


def test_one_group_is_dealt_out_by_clips() -> None:
    parts = parts_of(np.arange(20) % 4, ["anna"] * 20)
    assert np.bincount(parts).tolist() == [4] * 5
