"""docs/results/int8.md: the tables, and what they show by rule. No number is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgepkd.int8 import Int8Recipe
from edgepkd.logits.metrics import FEW_GROUPS, Interval
from edgepkd.studies.int8.jobs import FORMS, FP32
from edgepkd.studies.int8.tables import MAX_FLIPS, TOLERANCE, Row, SetResult
from edgepkd.studies.markdown import holds, listed, points, share, table, times
from edgepkd.studies.study import Study

TITLES = {"fp32": "FP32", "ptq-plain": "plain PTQ", "ptq": "PTQ", "qat": "QAT", "qad": "QAD"}
MAIN = "ptq"
"""What `edgepkd quantize` does unless told otherwise."""
QUANTIZED = tuple(form for form in FORMS if form != FP32)
LIMIT = f"{100 * TOLERANCE:.1f} point"
MOST_NAMED = 3
"""So many worst exits are named, further ones counted."""


def page(
    results: Sequence[SetResult], study: Study, recipe: Int8Recipe, name: str
) -> list[str]:
    """Lines of NAME.md."""
    lines = [
        "# INT8: PTQ, QAT and QAD against FP32", "",
        f"Written by `just reproduce-int8` ([JSON]({name}.json)). Accuracies are %, differences "
        "are points, brackets are 95 % intervals over whole groups; bold: the interval leaves out "
        "0. Every clip is answered by networks that never saw its group. Nothing was chosen on "
        "these answers. INT8 answers are those of the quantised networks in torch, every quantised "
        "tensor on its grid; engines are checked against these by `edgepkd export`.", "",
        *_condition_lines(study, recipe), "", *_set_lines(results), "",
        "## In short", "",
    ]
    for result in results:
        lines += _verdict_lines(result)
    lines += [*_caveats(results), ""]
    for result in results:
        dataset = result.answered.dataset
        lines += [f"## {dataset}, each exit", "", *_exit_lines(result), ""]
        lines += [f"## {dataset}, networks and cascade", "", *_cascade_lines(result), ""]
    return [*lines, "## Time", "", *_time_lines(results)]


def _condition_lines(study: Study, recipe: Int8Recipe) -> list[str]:
    quantizer, steps = recipe.quantizer, recipe.finetune
    return [
        f"Seeds: trunks {listed(study.trunk_seeds)}; exits (PKD) {listed(study.exit_seeds)}; all "
        "forms share them. "
        f"Quantiser: weights of {quantizer.weight_bits} bits a channel, activations of 8 bits a "
        f"tensor, calibrator {quantizer.calibrator} on up to {recipe.calibration_clips} training "
        f"clips, residual adds {quantizer.residual_add}. PTQ corrects biases after that, plain PTQ "
        "does not. QAT and QAD start from PTQ: "
        f"{steps.length}, learning rate {steps.learning_rate:g} x the trunk's, "
        f"{steps.batch_clips} clips a batch; QAD's losses: {steps.scheme}, with a share of "
        f"{steps.self_share:g} from its own FP32 network; QAT's: labels alone. Kept is the "
        f"{_kept(recipe)}. WISE and exit policy are fitted anew for each form, on its own logits, "
        "and cross-fitted.",
    ]


def _kept(recipe: Int8Recipe) -> str:
    if recipe.finetune.select == "last":
        return "last epoch"
    return ("epoch, or the start, that on training clips which set no range is closest to FP32 "
            "(QAT: has the least loss)")


def _set_lines(results: Sequence[SetResult]) -> list[str]:
    rows = []
    for r in results:
        count = len(r.answered.truth)
        lost = int(TOLERANCE * count + 1e-9)
        rows.append([
            r.answered.dataset, str(count), str(len(r.answered.label_names)),
            str(r.answered.num_groups), str(r.answered.num_folds),
            f"{100 * r.verdict['one_clip']:.1f}", str(lost),
        ])
    return table(["set", "clips", "classes", "groups", "folds", "one clip, points",
                  f"clips that a loss of {LIMIT} may cost"], rows)


def _exit_lines(result: SetResult) -> list[str]:
    rows = [[row["exit"], *_compared_cells(row),
             *(f"{100 * row['agreement'][f].value:.1f}" for f in QUANTIZED)]
            for row in result.exits]
    return [*table(["exit", *_COMPARED_HEAD, *(f"{TITLES[f]} agrees" for f in QUANTIZED)], rows),
            "", "Agrees: share of clips, %, with the top label of FP32."]


_COMPARED_HEAD = [*TITLES.values(), *(f"{TITLES[form]} less FP32" for form in QUANTIZED)]


def _compared_cells(row: Row) -> list[str]:
    """Accuracy of FP32 with its interval and of the others; differences with theirs."""
    accuracy = row["accuracy"]
    return [share(accuracy[FP32]), *(f"{100 * accuracy[f].value:.1f}" for f in QUANTIZED),
            *(points(row["less_fp32"][f]) for f in QUANTIZED)]


def _cascade_lines(result: SetResult) -> list[str]:
    places = [(f"{row['network']}, four exits", row) for row in result.networks]
    point, count = result.cascade["operating_point"], result.cascade["num_exits"]
    places += [(f"all {count} exits", result.cascade["full"]), ("with early exits", point)]
    rows = [[name, *_compared_cells(row)] for name, row in places]
    taken = [[TITLES[form], _number(point["mean_exit"][form]), share(point["macs_saved"][form]),
              "" if form == FP32 else share(point["exit_flips"][form])] for form in FORMS]
    return [*table(["WISE", *_COMPARED_HEAD], rows), "",
            *table(["operating point", f"mean exit, 1 to {count}", "MACs saved, %",
                    "exit flips, %"], taken),
            "", "Exit flips: share of clips that leave at another exit than in FP32."]


def _number(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _time_lines(results: Sequence[SetResult]) -> list[str]:
    rows = [[r.answered.dataset, *row] for r in results
            for row in times(r.answered.seconds, TITLES)]
    return ["Seconds a fold for all three networks, one thread, folds side by side on a busy "
            "machine; QAT and QAD with what their teachers say.", "",
            *table(["set", "step", "median", "most"], rows)]


# ---- what holds


def _verdict_lines(result: SetResult) -> list[str]:
    """Sentences that follow from the numbers by rule."""
    found, name = result.verdict, result.answered.dataset
    within, shown = found["exits_within"], found["exits_shown"]
    others = ", ".join(f"{TITLES[f]} {within[f]}" for f in QUANTIZED if f != MAIN)
    return [
        f"- **{name}, exits**: {TITLES[MAIN]} is within {LIMIT} of FP32 at {within[MAIN]} of "
        f"{found['num_exits']} exits ({others}); the interval alone shows it at {shown[MAIN]}. "
        f"Mean over exits: {_each(found['mean_less_fp32'])}.",
        _place_line(result, "full", "all exits"),
        _place_line(result, "operating_point", "operating point"),
        _flips_line(result),
        f"- **{name}, which method**, mean over exits: PTQ less plain PTQ "
        f"{points(found['ptq_less_plain'])}, "
        + _method(found["ptq_less_plain"], "PTQ is better", "plain PTQ is better",
                  "plain PTQ is as good") +
        f"; QAD less PTQ {points(found['qad_less_ptq'])}, "
        f"{_method(found['qad_less_ptq'], 'QAD is better', 'PTQ is better', 'PTQ is as good')}; "
        f"QAT less QAD {points(found['qat_less_qad'])}, "
        f"{_method(found['qat_less_qad'], 'QAT is better', 'QAD is better', 'QAT is as good')}.",
        f"- **{name}, worst exits**: " + "; ".join(
            f"{TITLES[f]} {_named(found['worst'][f]['exits'])} "
            f"({100 * found['worst'][f]['less_fp32']:+.1f})" for f in QUANTIZED) + ".",
    ]


def _flips_line(result: SetResult) -> str:
    flips, within = (result.cascade["operating_point"]["exit_flips"],
                     result.verdict["flips_within"])
    each = ", ".join(f"{TITLES[f]} {share(flips[f])}" for f in QUANTIZED)
    word = "are" if within[MAIN] else "are **not**"
    return (f"- **{result.answered.dataset}, exit flips**, policies fitted anew: {TITLES[MAIN]}'s "
            f"{word} within {100 * MAX_FLIPS:g} %. {each}.")


def _place_line(result: SetResult, key: str, title: str) -> str:
    found, row = result.verdict, result.cascade[key]
    word = "is" if found[f"{key}_within"][MAIN] else "is **not**"
    shown = "shows it too" if found[f"{key}_shown"][MAIN] else "does not show it"
    if not found[f"{key}_within"][MAIN]:
        shown = "shows it" if row["less_fp32"][MAIN].high < -TOLERANCE else "leaves it open"
    more = ""
    if key == "operating_point":
        exits, saved = row["mean_exit"], row["macs_saved"]
        more = (f" Mean exit {exits[MAIN].value:.2f} (FP32 {exits[FP32].value:.2f}), MACs saved "
                f"{100 * saved[MAIN].value:.0f} % ({100 * saved[FP32].value:.0f} %).")
    return (f"- **{result.answered.dataset}, {title}**: {TITLES[MAIN]} {word} within {LIMIT} of "
            f"FP32; the interval {shown}. {_each(row['less_fp32'])}; FP32 "
            f"{share(row['accuracy'][FP32])}.{more}")


def _each(less_fp32: Mapping[str, Interval]) -> str:
    return ", ".join(f"{TITLES[form]} {points(less_fp32[form])}" for form in QUANTIZED)


def _method(found: Interval, better: str, worse: str, equal: str) -> str:
    text = holds(found, better, worse)
    return text if text in (better, worse) else f"{text}: as far as these clips tell, {equal}"


def _named(exits: Sequence[str]) -> str:
    more = len(exits) - MOST_NAMED
    return listed(exits[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _caveats(results: Sequence[SetResult]) -> list[str]:
    steps = ", ".join(f"{100 * r.verdict['one_clip']:.1f} ({r.answered.dataset})" for r in results)
    few = [r.answered.dataset for r in results if r.answered.num_groups < FEW_GROUPS]
    lines = [
        f"- Within {LIMIT}: the measured value, a gain included. That is not a proof that INT8 "
        f"loses no more; only an interval above -{100 * TOLERANCE:.1f} is. One clip is {steps} "
        "points.",
        "- \"No difference shown\" is not equality: it is what so few clips can tell. The worst "
        "exit of twelve is picked after the fact; its interval does not allow for that.",
    ]
    if few:
        lines.append(f"- {listed(few)}: fewer than {FEW_GROUPS} groups, so that the intervals "
                     "themselves are hardly known.")
    return lines
