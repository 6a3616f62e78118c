"""Writes MODEL_CARD.md: what a bundle was trained on, what it is worth, and what it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgepkd.datasets.index import Sample
from edgepkd.deploy.gate import Parity, format_gate
from edgepkd.int8 import Int8Recipe
from edgepkd.logits.report import Report, format_report
from edgepkd.text import markdown
from edgepkd.training.recipe import TrainRecipe


@dataclass(frozen=True)
class CardFacts:
    """What the card tells besides the recipe."""

    labels: tuple[str, ...]
    train: Sequence[Sample]
    test: Sequence[Sample]
    held_out: Report
    """Cross-fitted: each training clip answered by a cascade that never saw its group."""
    on_test: Sequence[Report]
    """One for each order shown, the default order first."""
    float_on_test: Report
    """The same cascade with the FP32 networks, and what was fitted to them."""
    float_held_out: Report
    parity: Parity
    """On the test clips, whose labels play no part, and on the held-out ones."""
    int8: Int8Recipe


def model_card(recipe: TrainRecipe, facts: CardFacts) -> str:
    """Text of the model card, Markdown."""
    default = facts.on_test[0]
    sections = [
        f"# {recipe.name}\n\n{recipe.purpose}",
        "## Answers\n\n" + ", ".join(map(markdown, facts.labels)),
        "## Data and split\n\n" + _data(recipe, facts),
        "## Accuracy on the test split\n\nIn brackets: Wilson's 95 % interval, which takes clips "
        "as independent; clips of one group are not, so the truth is wider.",
        *("### " + format_report(report) for report in facts.on_test),
        "### Each label, cascade with early exits\n\n" + _per_label(default),
        "## Held-out training groups\n\nEach clip is answered by networks, WISE weights and a "
        "policy that were made without its fold.\n\n"
        + format_report(facts.held_out),
        "## INT8 against FP32\n\n" + _int8(facts),
        "## How it was made\n\n" + _method(recipe),
        "## Terms\n\n" + recipe.terms,
        "## Limits\n\n" + _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _data(recipe: TrainRecipe, facts: CardFacts) -> str:
    return "\n".join([
        f"{recipe.dataset}: {_count(facts.train)} to train and calibrate, {_count(facts.test)} "
        "to test. The split is by whole groups (persons or recordings); no group, file or equal "
        "content is on both sides (checked at every run). A whole file is one clip. Every clip was "
        "re-encoded to one form first (340x256, MPEG-4, GOP 12, no B-frames), so that no "
        "network can tell a label by its encoder.",
        "",
        f"The test split was not looked at for any choice: settings were chosen by "
        f"{recipe.num_folds}-fold cross-validation over training groups; WISE weights, "
        "temperatures and thresholds come from the same held-out answers.",
    ])


def _count(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} clips of {len({s.group for s in samples})} groups"


def _per_label(report: Report) -> str:
    lines = ["| label | accuracy |", "|---|---|"]
    return "\n".join(lines + [f"| {markdown(n)} | {a} |" for n, a in report.per_label.items()])


def _method(recipe: TrainRecipe) -> str:
    lines = ["| modality | backbone | start | input | temporal segments |", "|---|---|---|---|---|"]
    for modality, spec in recipe.inputs.items():
        backbone = recipe.backbones[modality]
        start = "ImageNet" if backbone.imagenet else "random"
        lines.append(f"| {modality} | {backbone.backbone}, width {backbone.width:g} | {start} | "
                     f"{spec.num_channels}x{spec.crop_px}x{spec.crop_px} | {spec.num_segments} |")
    lines += [
        "",
        f"Internal classifiers: {recipe.exits.scheme} on frozen trunks, {recipe.exits.length}"
        f", share of hard labels {recipe.exits.label_share:g}. WISE: convex fit, L2 "
        f"{recipe.wise.l2:g}. Thresholds: may cost {100 * recipe.wise.accuracy_loss:g} points on "
        f"held-out clips against the full chain. All of it is fitted on the answers of the INT8 "
        f"segments, run by OpenVINO. Seed {recipe.seed}.",
    ]
    return "\n".join(lines)


def _int8(facts: CardFacts) -> str:
    finetune = facts.int8.finetune
    rows = [("test split", facts.float_on_test, facts.on_test[0]),
            ("held-out training groups", facts.float_held_out, facts.held_out)]
    return "\n".join([
        f"Ranges by calibrator {facts.int8.quantizer.calibrator} on "
        f"{facts.int8.calibration_clips} training clips, {facts.int8.quantizer.weight_bits}-bit "
        "steps in 8-bit weights (so that CPUs without VNNI do not overflow), then "
        f"{finetune.length} with the distillation loss on (QAD, half of it from the FP32 "
        "network itself).",
        "",
        "| | FP32 full chain | INT8 full chain | FP32 cascade | INT8 cascade |",
        "|---|---|---|---|---|",
        *(f"| {name} | {a.full_chain} | {b.full_chain} | {a.cascade} | {b.cascade} |"
          for name, a, b in rows),
        "",
        format_gate(facts.parity),
    ])


def _limits(facts: CardFacts) -> str:
    return (
        f"Trained on {len(facts.train)} short clips: a demonstration, not a product. It always "
        "answers with one of its labels, also for what none of them fits. Cameras, viewpoints and "
        "people unlike those of the data set, and streams read natively at another size or frame "
        "rate than the training form, can be far less accurate than the table. Do not base "
        "decisions about people on it."
    )
