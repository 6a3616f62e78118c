"""What a reader of an evaluation's numbers should know: how few groups, what was not fitted."""

from __future__ import annotations

from edgepkd.logits.evaluate import Evaluation
from edgepkd.pipeline.trained_run import TrainedRun
from edgepkd.training.predict import Predicted


def notes_on(
    evaluation: Evaluation, predicted: Predicted, run: TrainedRun, *, num_looks: int
) -> tuple[str, ...]:
    """Notes on what was found; `num_looks`: how often this split was evaluated with the run."""
    answered = predicted.answered
    notes = []
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
