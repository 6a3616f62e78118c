"""What a reader of an evaluation's numbers should know: what is no better than chance, how few
groups there are, what was not fitted."""

from __future__ import annotations

from edgepkd.cascade import ExitPolicy, WiseWeights, order_key
from edgepkd.logits.evaluate import Evaluation
from edgepkd.logits.verdicts import at_chance, judge_cascade
from edgepkd.pipeline.trained_run import TrainedRun
from edgepkd.training.predict import Predicted


def notes_on(
    evaluation: Evaluation, predicted: Predicted, run: TrainedRun, *, num_looks: int
) -> tuple[str, ...]:
    """Notes on what was found; `num_looks`: how often this split was evaluated with the run."""
    answered = predicted.answered
    notes = [*(f"after training: {text}" for text in run.findings),
             *_verdicts_on(evaluation, predicted, run)]
    if predicted.skipped:
        notes.append(f"{len(predicted.skipped)} clips could not be read and are left out, the"
                     f" first: {predicted.skipped[0].path}: {predicted.skipped[0].reason}")
    if evaluation.order not in run.fitted:
        which = "nothing was fitted" if not run.fitted else "nothing was fitted for this order"
        notes.append(f"{which}: prefixes are plain sums, and there is no policy, hence no cascade;"
                     " run `edgepkd wise fit`")
    if evaluation.scores[0].top1.few_groups:
        notes.append(f"{evaluation.scores[0].top1.num_groups} groups only: from so few, how"
                     " answers vary from group to group is hardly known")
    if absent := [name for i, name in enumerate(answered.label_names)
                  if not (answered.labels == i).any()]:
        notes.append(f"no clip of {', '.join(absent)}")
    if len(answered.label_names) <= 5:
        notes.append(f"no top-5: there are {len(answered.label_names)} labels")
    if answered.views.crops > 1 and (uncut := [
        m for m, px in answered.views.crop_px.items() if px == answered.views.resize_px[m]
    ]):
        notes.append(f"the ten crops of {', '.join(uncut)} are two, the whole picture and its"
                     " mirror image: crop_px equals resize_px")
    if answered.split == "test" and num_looks > 1:
        notes.append(f"look {num_looks} at the test split with this run: what was chosen after"
                     " the first one is no longer a test")
    if answered.split != "test":
        notes.append(f"these are {answered.split} clips: "
                     + ("the networks have seen them" if answered.split == "train" else
                        "WISE, policy or epochs may have been chosen on them"))
    return tuple(notes)


def _verdicts_on(
    evaluation: Evaluation, predicted: Predicted, run: TrainedRun
) -> tuple[str, ...]:
    """Networks that know nothing, a cascade that says one thing or is worse than a part of it."""
    answered, order = predicted.answered, evaluation.order
    policy: ExitPolicy | None
    weights, policy = run.fitted.get(order, (WiseWeights.ones(order), None))
    verdicts = judge_cascade(
        answered.logits, answered.labels, answered.groups, weights=weights, policy=policy,
        fitted=run.fitted, label_names=answered.label_names)
    helps = [f"`edgepkd eval` with --order {gap.best_network} has the better part alone"
             for gap in verdicts.shortfalls[:1] if len(order) > 1]
    if verdicts.constant and not helps:
        helps.append("train on, or on more groups: these networks say one thing"
                     if order not in run.fitted else
                     f"fit weights for {order_key(order)} anew, on more groups: `edgepkd wise fit"
                     " --force`")
    return (*at_chance({m: answered.logits[m] for m in order}, answered.labels, answered.groups),
            *verdicts.words, *helps)
