"""MODEL_CARD.md of a bundle that was exported from a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepkd.deploy.gate import Parity, format_gate
from edgepkd.logits.report import Report, format_report
from edgepkd.pipeline.trained_run import TrainedRun
from edgepkd.text import markdown


@dataclass(frozen=True)
class RunFacts:
    """What the card tells."""

    name: str
    run: TrainedRun
    quantization: Mapping[str, Any] | None
    """What quantize.json of the run says."""
    parity: Parity
    report: Report
    of: str
    """Clips that `report` is on, and what was done with them, in words."""
    notes: Sequence[str]


def run_card(facts: RunFacts) -> str:
    """Text of the model card, Markdown."""
    record = facts.run.record
    networks = "\n".join(
        f"- {m}: {network.spec.backbone}, width {network.spec.width:g}, "
        f"{record.recipe.inputs[m].num_segments} temporal segments of "
        f"{record.recipe.inputs[m].crop_px} px"
        f"{', stacked in one pass' if record.recipe.inputs[m].stack else ''}"
        for m, network in facts.run.networks.items())
    method = (f"INT8 by {facts.quantization['method'].upper()}" if facts.quantization else "float")
    sections = [
        f"# {markdown(facts.name)}\n\n{record.recipe.purpose}",
        "## Answers\n\n" + ", ".join(map(markdown, record.labels)),
        f"## Networks\n\n{networks}\n\nSegments are {method}. Seed {record.seed}.",
        "## Parity\n\nDeployed segments against the networks that they came from, on "
        f"{facts.report.cascade.num_clips} clips.\n\n" + format_gate(facts.parity),
        f"## Accuracy\n\nOn {facts.of}: take it for an upper limit. "
        "`edgepkd eval` has the test split.\n\n"
        + format_report(facts.report),
        *(["## Notes\n\n" + "\n".join(f"- {markdown(note)}" for note in facts.notes)]
          if facts.notes else []),
        "## Terms\n\n" + (record.recipe.terms or "Those of the training data."),
    ]
    return "\n\n".join(sections) + "\n"
