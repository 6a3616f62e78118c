"""A cascade on trial: what is refused, and what it is fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgepkd.cascade import ExitPolicy, Floats, Labels, Order, WiseWeights, replay
from edgepkd.logits.choice import CrossFit, Evidence, choose
from edgepkd.logits.policy import fit_policy_on
from edgepkd.logits.trial import Trial, try_cascade
from edgepkd.logits.wise import in_order
from tests.logits.made_logits import make_doubtful

ORDER: Order = ("mv", "iframe")


def fit(combined: Floats, labels: Labels) -> ExitPolicy:
    return fit_policy_on(combined, labels, order=ORDER, accuracy_loss=0.02)


def trial(evidence: Evidence, take: str) -> Trial:
    tracks = CrossFit(evidence).tracks(ORDER)
    return try_cascade(choose(tracks, evidence, take=take), evidence, fit=fit)  # type: ignore[arg-type]


NAMES = ("a", "b", "c", "d", "e", "f")
LOUD = {"mv": (1.5, 1.0), "iframe": (0.0, 5.0)}


def test_sums_with_a_loud_network_at_chance_are_below_the_best_exit() -> None:
    evidence = make_doubtful(num_clips=120, num_groups=12, worth=LOUD)  # type: ignore[arg-type]
    sums = trial(evidence, "sums")
    assert sums.best.mean() > 0.8
    assert (sums.full == evidence.labels).mean() < 0.5
    tight = replace(sums, right=sums.full == evidence.labels)
    assert tight.shortfall.difference.value == (tight.right.mean() - sums.best.mean())
    said = tight.fault(NAMES)
    assert said is not None
    assert said.startswith("the cascade mv,iframe is right ")
    assert f"less often than its best exit alone ({100 * sums.best.mean():.1f} % of 120 clips)" \
        in said
    assert trial(evidence, "wise").fault(NAMES) is None


def test_an_answer_that_never_changes_is_constant_unless_the_clips_are_alike() -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6, worth=LOUD)  # type: ignore[arg-type]
    sound = trial(evidence, "wise")
    assert sound.fault(NAMES) is None
    for same in (np.full(60, 2), np.r_[np.full(58, 2), 0, 1]):
        said = replace(sound, full=same).fault(NAMES)
        assert said is not None
        assert said.startswith("the full chain mv,iframe answers 'c' for ")
    assert replace(sound, full=np.r_[np.full(50, 2), np.zeros(10, int)]).fault(NAMES) is None
    alike = np.r_[np.full(58, 2), 0, 1]
    assert replace(sound, full=alike, labels=alike).fault(NAMES) is None


def test_a_handful_of_clips_condemns_nothing() -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6, worth=LOUD)  # type: ignore[arg-type]
    sound = trial(evidence, "wise")
    few = replace(sound, right=np.zeros(3, bool), best=np.ones(3, bool), full=np.zeros(3, int),
                  labels=np.arange(3), groups=("a", "b", "c"))
    assert few.fault(NAMES) is None


def test_the_policy_is_that_of_the_cross_fitted_answers() -> None:
    evidence = make_doubtful(num_clips=60, num_groups=6,
                             worth={"mv": (1.5, 1), "iframe": (1.5, 1)})
    found = choose(CrossFit(evidence).tracks(ORDER), evidence, take="sums")
    tried = try_cascade(found, evidence, fit=fit)
    logits = in_order(evidence.logits, ORDER)
    assert tried.policy == fit(found.taken.combined, evidence.labels)
    for part in np.unique(evidence.parts):
        mine = evidence.parts == part
        policy = fit(found.taken.combined[~mine], evidence.labels[~mine])
        answered = replay(logits[mine], WiseWeights.ones(ORDER), policy)
        assert (answered.exits == tried.exits[mine]).all()
        assert ((answered.labels == evidence.labels[mine]) == tried.right[mine]).all()
