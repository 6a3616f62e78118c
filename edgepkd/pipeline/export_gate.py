"""The gate of `export RUN`: what is judged, and which command can help where it refuses.

The forms of the cascade are compared on the run's calibration clips; INT8 with FP32 also on the
held-out clips of the training folds, where cross-fitting left the answers of the fold networks and
of their quantised twins. Those are more clips, and nobody has seen them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.bundle.manifest import SUFFIX
from edgepkd.cascade import ExitPolicy, Labels, Order, WiseWeights
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.gate import Evidence, Parity, judge, refuse, write_report
from edgepkd.engines.targets import Target
from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import ClipLogits, ModalityLogits, load_logits
from edgepkd.logits.fit import WiseRecipe, fit_deployed
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.verdicts import Verdicts, judge_cascade
from edgepkd.pipeline.held_out import FOLDS, LOGITS
from edgepkd.text import command
from edgepkd.training.runs import RUN_FILE

FOLD_LOGITS = Path(FOLDS, LOGITS)
"""Below a run: what the networks of its folds answered to the clips held out from them."""
FEW = 50
"""Clips; where so few are judged, more are proposed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What the gate of one export looks at."""

    source: Path
    """Folder of the run."""
    out: Path
    """The bundle to be written."""
    target: Target
    order: Order
    """The default order of the bundle."""
    split: str
    """Whose clips were answered."""
    answers: Mapping[str, ModalityLogits]
    pairs: Sequence[tuple[str, str]]
    labels: Labels
    groups: Sequence[str]
    label_names: tuple[str, ...]
    fitted: Fitted
    """For the deployed segments."""
    is_fitted_here: bool
    """Whether `fitted` was fitted to these very answers: only then is the same for FP32 a match."""
    settings: WiseRecipe
    method: str | None
    """How the run was quantised; None: it was not."""


def pass_gate(judged: Judged, *, allow_drift: bool) -> Parity:
    """Judge, write the report beside the bundle's place, and raise unless all is well.

    Raises:
        ModelError: the bundle is refused, and not `allow_drift`. DataError: logits of folds are
            damaged, or of other clips than their twins. StorageError: no report can be written.
    """
    evidence = [Evidence(
        clips=f"{judged.split} clips", answers=judged.answers, pairs=judged.pairs,
        labels=judged.labels, groups=judged.groups, fits=_fits(judged))]
    if (folds := fold_pair(judged.source)) is not None:
        evidence.append(_of_folds(*folds, judged))
    verdicts = _verdicts(judged)
    parity = judge(evidence, target=judged.target, verdicts=verdicts)
    report = write_report(parity, report_stem(judged.out), name=judged.out.name)
    if not allow_drift:
        refuse(parity, hint=" ".join(_advice(parity, verdicts, judged)), report=report)
    return parity


def report_stem(bundle: Path) -> Path:
    """Path of the report beside `bundle`, without .parity.json and .parity.md."""
    return bundle.with_name(bundle.name.removesuffix(SUFFIX))


def fold_pair(source: Path) -> tuple[ClipLogits, ClipLogits] | None:
    """Held-out answers of the fold networks of an INT8 run: (INT8, FP32); None: not both are there.

    Raises:
        DataError: a file is damaged, or they are of different clips.
    """
    paths = [folder / FOLD_LOGITS for folder in (source, source.resolve().parent)]
    if not all(path.is_file() for path in paths):
        return None
    int8, as_float = map(load_logits, paths)
    if (int8.paths, int8.label_names) != (as_float.paths, as_float.label_names):
        raise DataError(f"{paths[0]} and {paths[1]} hold answers to different clips.",
                        hint="Write both anew, from one index.")
    return int8, as_float


def _fits(judged: Judged) -> dict[str, tuple[WiseWeights, ExitPolicy]]:
    """Each form with what would be fitted to it; twins share what is fitted to the segments.

    Where that was fitted on other clips, FP32 shares it too: a fit of its own to these, which it
    may even have been trained on, would only be flattered.
    """
    fits = {DEPLOYED: judged.fitted[judged.order]}
    if judged.is_fitted_here and FAKE_QUANT in judged.answers and FP32 in judged.answers:
        fits[FP32] = _fit(judged.answers[FP32], judged.labels, judged.groups, judged)
    return fits


def _of_folds(int8: ClipLogits, as_float: ClipLogits, judged: Judged) -> Evidence:
    answers = {FAKE_QUANT: int8.logits, FP32: as_float.logits}
    return Evidence(
        clips="held-out clips of the folds", answers=answers, pairs=[(FAKE_QUANT, FP32)],
        fits={form: _fit(logits, int8.labels, int8.groups, judged,
                         folds=int8.folds.fold_of if int8.folds else None)
              for form, logits in answers.items()},
        labels=int8.labels, groups=int8.groups)


def _fit(
    logits: ModalityLogits, labels: Labels, groups: Sequence[str], judged: Judged, *,
    folds: Sequence[int] | None = None,
) -> tuple[WiseWeights, ExitPolicy]:
    return fit_deployed(logits, labels, groups=groups, folds=folds, orders=[judged.order],
                        settings=judged.settings)[judged.order]


def _verdicts(judged: Judged) -> Verdicts:
    """Nothing on clips that the networks have seen, where late exits look perfect: `wise fit` has
    judged what is deployed on held-out ones."""
    if judged.split == "train":
        return Verdicts((), ())
    weights, policy = judged.fitted[judged.order]
    return judge_cascade(judged.answers[DEPLOYED], judged.labels, judged.groups, weights=weights,
                         policy=policy, fitted=judged.fitted, label_names=judged.label_names)


# ---- what helps


def _advice(parity: Parity, verdicts: Verdicts, judged: Judged) -> list[str]:
    """Commands that can help, the likeliest first."""
    export = ("edgepkd", "export", judged.source, "--target", judged.target.name)
    advice = []
    if parity.faults:
        advice.append("The segments, not the networks, are at fault: `edgepkd doctor` shows what"
                      " runs them.")
    if parity.drifts and judged.method is not None:
        advice.append(_quantise_again(judged.source, judged.method))
    if verdicts.shortfalls:
        best = verdicts.shortfalls[0].best_network
        advice.append(f"Make a better order the default: `{command(*export, '--order', best)}`.")
    elif verdicts.constant:
        advice.append("See which network knows something: "
                      f"`{command('edgepkd', 'eval', judged.source, '--split', judged.split)}`;"
                      " then export with that --order, or train on.")
    if parity.drifts and len(judged.labels) < FEW:
        advice.append(f"{len(judged.labels)} clips were judged: more groups in the calibration"
                      " split tell more.")
    return advice


def _quantise_again(source: Path, method: str) -> str:
    """What to try after `method` was not good enough; `source`: the INT8 run."""
    parent = source.resolve().parent
    run = parent if (parent / RUN_FILE).is_file() else "RUN"
    auto = ("--set", "quantizer.keep_float=auto", "--sensitivity", "--force")
    first = command("edgepkd", "quantize", run, "--method", method, *auto)
    other = "ptq" if method == "qad" else "qad"
    second = command("edgepkd", "quantize", run, "--method", other)
    return f"Keep what is sensitive float: `{first}`; or quantise otherwise: `{second}`."
