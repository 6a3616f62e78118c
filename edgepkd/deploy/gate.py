"""The gate before a bundle: is what would be deployed as good as what it came from?

Judged are the answers and the loss along the default order's cascade (`logits.gaps`), with an
interval, so that few clips refuse only what they show; an export that computes something else than
its network (`parity.export_faults`); and a cascade that is a constant or worse than its best part
(`logits.verdicts`). Single exits are reported. The report is written whatever the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepkd import plain_json
from edgepkd.cascade import ExitPolicy, Labels, WiseWeights
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.parity import ExitParity, compare, export_faults, format_parity
from edgepkd.engines.targets import Target
from edgepkd.errors import ModelError
from edgepkd.files import write_together
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.gaps import Allowed, Form, Gap, doubted, gaps_along, refused
from edgepkd.logits.metrics import Interval
from edgepkd.logits.verdicts import Verdicts, points
from edgepkd.text import markdown

SCHEMA_VERSION = 1
ALLOW = "--allow-drift writes the bundle all the same, and its manifest records it."


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the forms of a cascade answered to one set of clips."""

    clips: str
    """Which clips, in words."""
    answers: Mapping[str, ModalityLogits]
    """Logits [N, 4, classes] by form and modality."""
    pairs: Sequence[tuple[str, str]]
    """Forms to compare, each with the one that it came from."""
    fits: Mapping[str, tuple[WiseWeights, ExitPolicy]]
    """How each form's answers are combined; a form without is combined as the other of its pair."""
    labels: Labels | None
    """[N]; None: labels play no part."""
    groups: Sequence[str]
    """[N]"""

    def form(self, name: str, other: str) -> Form:
        """The form `name`, as it is compared with `other`."""
        weights, policy = self.fits[name] if name in self.fits else self.fits[other]
        return Form(name, self.answers[name], weights, policy)

    def is_twin(self, form: str, against: str) -> bool:
        """Whether both compute the same steps, one in torch and one exported."""
        return form == DEPLOYED and against == (
            FAKE_QUANT if FAKE_QUANT in self.answers else FP32)

    def is_judged(self, form: str) -> bool:
        """Whether `form` is what is deployed, or stands for it."""
        return form == DEPLOYED or DEPLOYED not in self.answers


@dataclass(frozen=True)
class Along:
    """Forms compared along the cascade on one set of clips."""

    clips: str
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Parity:
    """How alike the forms of one cascade answer, and what speaks against deploying it."""

    rows: tuple[ExitParity, ...]
    """Single exits."""
    along: tuple[Along, ...] = ()
    faults: tuple[str, ...] = ()
    """Exported exits that compute something else, in words, as the next three."""
    drifts: tuple[str, ...] = ()
    """Answers along the cascade that are shown to differ more than the target allows."""
    verdicts: tuple[str, ...] = ()
    """A constant answer, or a cascade below its best part."""
    doubts: tuple[str, ...] = ()
    """What these clips are too few to show."""

    @property
    def refused(self) -> tuple[str, ...]:
        """All that the bundle is refused for."""
        return (*self.faults, *self.drifts, *self.verdicts)


def refuse_broken(answers: Mapping[str, ModalityLogits]) -> None:
    """Refuse logits by form and modality that nothing can be fitted to.

    Raises:
        ModelError: some are not finite; names the first exit.
    """
    for form, modality, logits in ((f, m, x) for f, own in answers.items() for m, x in own.items()):
        bad = np.argwhere(~np.isfinite(logits))
        if bad.size:
            raise ModelError(f"logits of {modality}_{bad[0][1] + 1} of {form} are not finite for"
                             f" {len(np.unique(bad[:, 0]))} of {len(logits)} clips.",
                             hint="The network is broken; see its training log.")


def judge(
    evidence: Sequence[Evidence], *, target: Target, verdicts: Verdicts | None = None
) -> Parity:
    """Compare all pairs of all `evidence` with what `target` allows; nothing is raised."""
    rows: list[ExitParity] = []
    along: list[Along] = []
    faults: list[str] = []
    drifts: list[str] = []
    doubts: list[str] = []
    for one in evidence:
        exits = compare(one.answers, one.pairs)
        rows += exits
        for form, against in one.pairs:
            twin = one.is_twin(form, against)
            if twin:
                faults += export_faults(exits, form=form, against=against)
            if not one.is_judged(form):
                continue
            allowed = Allowed(agreement=target.agreement_floor if twin
                              else target.float_agreement_floor)
            gaps = gaps_along(one.form(form, against), one.form(against, form), one.labels,
                              one.groups)
            along.append(Along(one.clips, gaps))
            drifts += [f"{one.clips}: {text}" for text in refused(gaps, allowed)]
            doubts += [f"{one.clips}: {text}" for text in doubted(gaps, allowed)]
    return Parity(tuple(rows), tuple(along), tuple(faults), tuple(drifts),
                  verdicts.words if verdicts else (), tuple(doubts))


def refuse(parity: Parity, *, hint: str, report: Path | None = None) -> None:
    """Raise if anything speaks against the bundle.

    Raises:
        ModelError: says all of it, where the report lies, and `hint`.
    """
    if parity.refused:
        where = f" Exit by exit: {report}." if report else ""
        raise ModelError(f"{'; '.join(parity.refused)}.{where}", hint=f"{hint} {ALLOW}")


# ---- told


def parity_facts(parity: Parity) -> dict[str, Any]:
    """A parity report as plain JSON values, for a bundle that was written: all was allowed."""
    return {"exits": [asdict(row) for row in parity.rows], "cascade": _gap_facts(parity),
            "doubts": list(parity.doubts), "allowed_drift": list(parity.refused)}


def _gap_facts(parity: Parity) -> list[dict[str, Any]]:
    return [{"clips": one.clips, **asdict(gap)} for one in parity.along for gap in one.gaps]


def write_report(parity: Parity, stem: Path, *, name: str) -> Path:
    """Write STEM.parity.json and STEM.parity.md, both or neither; returns the latter.

    Raises:
        StorageError: they cannot be written.
    """
    facts = {"schema_version": SCHEMA_VERSION, "name": name, "refused": list(parity.refused),
             "doubts": list(parity.doubts), "cascade": _gap_facts(parity),
             "exits": [asdict(row) for row in parity.rows]}
    text = f"# Parity of {markdown(name)}\n\n{format_gate(parity)}\n"
    files = {f"{stem.name}.parity.json": plain_json.dumps(facts, indent=1).encode() + b"\n",
             f"{stem.name}.parity.md": text.encode("utf-8", "backslashreplace")}
    write_together(stem.parent, files)
    return stem.with_name(f"{stem.name}.parity.md")


def format_gate(parity: Parity) -> str:
    """Markdown: what is refused or in doubt, the cascade step by step, then single exits."""
    parts = []
    for title, lines in (("Refused", parity.refused), ("In doubt", parity.doubts)):
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"- {markdown(line)}" for line in lines))
    parts += [_format_along(one) for one in parity.along]
    return "\n\n".join([*parts, "Single exits, which are not judged by their answers:\n\n"
                        + format_parity(parity.rows)])


def _format_along(along: Along) -> str:
    first = along.gaps[0]
    return "\n".join([
        f"Along the cascade, {first.form} against {first.against},"
        f" {first.agreement.num_clips} {along.clips}:",
        "",
        "| ensemble at | same answer | points of accuracy lost | nats of loss more | exit flips |",
        "|---|---|---|---|---|",
        *("| " + " | ".join([
            gap.step if gap.is_judged else f"{gap.step} (at chance: not judged)",
            str(gap.agreement), "-" if gap.accuracy_loss is None else points(gap.accuracy_loss),
            _nats(gap.nll_loss),
            "-" if gap.exit_flips is None else f"{100 * gap.exit_flips:.1f} %"]) + " |"
          for gap in along.gaps)])


def _nats(loss: Interval | None) -> str:
    return "-" if loss is None else f"{loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]"
