"""docs/results/defaults.md: the tables, and what they show by rule; no number is written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgepkd.config import MODALITIES, NUM_EXITS
from edgepkd.studies.defaults.tables import NEAR, SetResult
from edgepkd.studies.markdown import listed, points, share, table
from edgepkd.studies.study import Study

Rights = Sequence[NDArray[np.bool_]]


def page(results: Sequence[SetResult], study: Study, name: str) -> list[str]:
    """Lines of NAME.md."""
    return [
        "# The default recipe on three sets", "",
        f"Written by `just carry-over` ([JSON]({name}.json)). `edgepkd train` with nothing "
        "set: the recipe `small`, the form of the motion network tried on the folds, exits by "
        "PKD, weights and policy as `edgepkd wise fit` finds them. Training groups alone, "
        "three folds of whole groups: every clip is answered by networks that never saw its "
        "group, and by weights and a policy fitted on other folds. Test clips are not looked "
        "at. Accuracies are %, differences are points, brackets are 95 % intervals over whole "
        f"groups of the mean over seeds; behind them each seed ({listed(study.trunk_seeds)}). "
        "FP32.", "",
        "Floors: the largest class; a small tree that sees no picture (size, length, rate); eight "
        "RGB frames at 224 px through a frozen EfficientNet-Lite0 and a logistic regression, the "
        "same folds. Tuned: the demo recipe of the set, whose settings were chosen on it "
        "([accuracy.md](accuracy.md)).", "",
        *_cascades(results), "", *_verdict(results), "",
        "## Each network alone, last exit", "", *_networks(results), "",
        "## Each exit", "", *_exits(results), "",
        "## What was taken, seed by seed", "", *_choices(results, study),
    ]


def _cascades(results: Sequence[SetResult]) -> list[str]:
    rows = [[
        r.answered.dataset, f"{len(r.answered.truth)}, {r.answered.num_groups}",
        f"{100 * r.chance:.0f}", f"{100 * r.no_look.accuracy:.0f}" if r.no_look else "-",
        f"{100 * r.floor.mean():.1f}", _shares(r, r.full), _shares(r, r.early),
        listed([f"{100 * value:.1f}" for value in r.plan.tuned or ()]) or "-",
        points(r.interval([right - r.floor.astype(float) for right in r.early])),
        f"{np.mean([s.trial.exits.mean() for s in r.seeds]):.1f}",
        f"{100 * np.mean([s.saved.mean() for s in r.seeds]):.0f}",
    ] for r in results]
    return table(["set", "clips, groups", "largest class", "no look", "RGB floor", "full chain",
                  "cascade", "tuned: chain, cascade", "cascade less RGB floor",
                  "mean exit of 12", "MACs saved, %"], rows)


def _shares(result: SetResult, rights: Rights) -> str:
    """`81.2 [70.1, 90.3]; 80.1, 82.0, 81.5`."""
    return f"{share(result.interval(rights))}; {_by_seed(rights)}"


def _by_seed(rights: Rights) -> str:
    return listed([f"{100 * right.mean():.1f}" for right in rights])


def _verdict(results: Sequence[SetResult]) -> list[str]:
    lines = []
    for r in results:
        if r.plan.tuned is not None:
            gaps = [100 * (np.mean(own) - tuned)
                    for own, tuned in zip((r.full, r.early), r.plan.tuned, strict=True)]
            lines.append(
                f"- **{r.answered.dataset}**: {'within' if r.is_near else 'NOT within'} "
                f"{100 * NEAR:.0f} points of the tuned recipe: full chain {gaps[0]:+.1f}, cascade "
                f"{gaps[1]:+.1f}.")
        short = [m for m in MODALITIES if not r.beats_chance(m)]
        lines.append(f"- **{r.answered.dataset}**: " + (
            f"{listed(short)} not shown to beat chance ({100 * r.chance:.0f} %)." if short else
            f"the interval of every network lies above chance ({100 * r.chance:.0f} %)."))
    return lines


def _networks(results: Sequence[SetResult]) -> list[str]:
    rows = [[r.answered.dataset, *(_shares(r, r.exit(m, NUM_EXITS - 1)) for m in MODALITIES)]
            for r in results]
    return table(["set", *MODALITIES], rows)


def _exits(results: Sequence[SetResult]) -> list[str]:
    rows = [[f"{m}_{index + 1}", *(share(r.interval(r.exit(m, index))) for r in results)]
            for m in MODALITIES for index in range(NUM_EXITS)]
    return table(["exit", *(r.answered.dataset for r in results)], rows)


def _choices(results: Sequence[SetResult], study: Study) -> list[str]:
    rows = [[r.answered.dataset, str(name), "stacked" if seed.form.is_stacked else "averaged",
             seed.form.why, seed.taken, seed.why]
            for r in results for name, seed in zip(study.trunk_seeds, r.seeds, strict=True)]
    return table(["set", "seed", "motion", "why", "weights", "why"], rows)
