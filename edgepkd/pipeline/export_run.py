"""The verb `export` for a training run: its networks as a bundle, compared and weighed first.

The clips of the calibration split are answered by the networks in torch and by the exported
segments on OpenVINO. WISE weights and the exit policy are fitted on what the segments answered;
where the cascade passes the gate (`export_gate`), the bundle is written, and engines for a target
are built from it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepkd._optional import require
from edgepkd.bundle.manifest import SUFFIX
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Labels, Order, order_key, parse_order
from edgepkd.config import Inputs, Modality
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32, deployed_answers, torch_answers
from edgepkd.deploy.bundle import Origin, write_trained
from edgepkd.deploy.gate import Parity, parity_facts, refuse_broken
from edgepkd.deploy.parity import ENOUGH_CLIPS, Segments
from edgepkd.deploy.segments import export_segments
from edgepkd.engines.targets import Target, load_target
from edgepkd.errors import BundleError, DataError, SourceError, UsageError
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.fit import fit_deployed
from edgepkd.logits.fit_files import Fitted, read_fitted
from edgepkd.logits.report import Report, answer, report_of
from edgepkd.logits.verdicts import at_chance
from edgepkd.logits.wise import all_orders
from edgepkd.models.macs import clip_gmac
from edgepkd.models.segmented import Networks
from edgepkd.outputs import check_folder
from edgepkd.pipeline.clips import Split, clips_in_splits, of_split
from edgepkd.pipeline.export_bundle import ExportConfig, export_bundle
from edgepkd.pipeline.export_gate import Judged, pass_gate
from edgepkd.pipeline.held_out import read_folds
from edgepkd.pipeline.run_card import RunFacts, run_card
from edgepkd.pipeline.trained_run import TrainedRun, open_run
from edgepkd.quantize.network import is_quantized
from edgepkd.training.cache import ClipArrays, cached_clip
from edgepkd.training.entries import trim
from edgepkd.training.runs import RUN_FILE

if TYPE_CHECKING:
    from edgepkd.engines.build import BuildEvent


@dataclass(frozen=True)
class BundleWritten:
    """The run is a bundle now."""

    bundle: Bundle
    parity: Parity
    report: Report
    of: str
    """Clips that `report` is on, and what was done with them, in words."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Clips:
    split: Split
    """calibration; train where the run has no calibration clips."""
    arrays: Sequence[ClipArrays]
    labels: Labels
    groups: tuple[str, ...]
    num_skipped: int


def export_run(config: ExportConfig) -> Generator[BundleWritten | BuildEvent, None, None]:
    """Write the bundle of run `config.source`, then build the engines of `config.target`.

    Raises:
        DataError: the run, its calibration clips or its networks are not there.
        ModelError: the gate refuses the cascade (a report then lies beside the bundle's place), or
            a segment cannot be built.
        UsageError: an order that the run has not all networks for.
        BundleError: there is a bundle of this name already, and no `force`.
    """
    target, out = load_target(config.target), bundle_path(config)
    check_folder("--cache", config.cache)
    check_folder("--out", out.parent)
    if out.exists() and not config.force:
        raise BundleError(f"{out} exists already.",
                          hint="Give --force to replace it, or another name with --out.")
    if config.via == "torch-tensorrt":
        from edgepkd.deploy.torch_tensorrt import require_torch_tensorrt
        from edgepkd.pipeline.export_torch import refuse_options

        refuse_options(config)
        require_torch_tensorrt()  # before hours of work
    written = _write_bundle(config, target, out)
    yield written
    if config.via == "torch-tensorrt":
        from edgepkd.pipeline.export_torch import export_by_torch

        yield from export_by_torch(config, written.bundle, _network_run(config).networks)
    elif target.builder != "onnx":
        yield from export_bundle(replace(config, source=out, out=None, allow_drift=False,
                                         order=None, static=False))


def bundle_path(config: ExportConfig) -> Path:
    """Where the bundle goes: beside the run, unless another place is asked for."""
    resolved = config.source.resolve()
    # "." and ".." have no name of their own.
    run = resolved if config.source.name in ("", "..") else config.source
    return config.out or run.with_name(resolved.name + SUFFIX)


def _network_run(config: ExportConfig) -> TrainedRun:
    require("torch", purpose="Exporting a training run")
    return open_run(config.source)


def _write_bundle(config: ExportConfig, target: Target, out: Path) -> BundleWritten:
    run = _network_run(config)
    recipe, order = run.record.recipe, _order(config, run)
    inputs: Inputs = {m: recipe.inputs[m] for m in run.networks}
    segments = export_segments(run.networks, inputs, weights=target.weights)
    clips = _clips(config, run)
    answers, pairs = _answers(config, run.networks, inputs, segments, clips)
    refuse_broken(answers)
    kept = _fitted_before(config.source, run, clips, order=order)
    fitted = kept or fit_deployed(
        answers[DEPLOYED], clips.labels, settings=recipe.wise, groups=clips.groups,
        orders=all_orders(tuple(run.networks)))
    if config.order is None and order not in fitted:
        order = next(iter(fitted))  # `wise fit` left the default order out
    name, quantization = _name(config), run.quantization
    parity = pass_gate(Judged(
        source=config.source, out=out, target=target, order=order, split=clips.split,
        answers=answers, pairs=pairs, labels=clips.labels, groups=clips.groups,
        label_names=run.record.labels, fitted=fitted, is_fitted_here=kept is None,
        settings=recipe.wise,
        method=quantization["method"] if quantization else None), allow_drift=config.allow_drift)
    report = _report(answers[DEPLOYED], clips, fitted, order, run, inputs)
    of = _in_words(clips.split, is_fitted_here=kept is None)
    notes = (*(f"after training: {text}" for text in run.findings),
             *_notes(clips, parity, num_forms=len(answers)),
             *at_chance(answers[DEPLOYED], clips.labels, clips.groups))
    bundle = write_trained(
        out, Origin(
            recipe=recipe, quantization=quantization, parity=parity,
            run={"seed": run.record.seed, "weights_sha256": dict(run.hashes)},
            clips={clips.split: {"num_clips": len(clips.labels),
                                 "num_groups": len(set(clips.groups))}}),
        name=name, labels=run.record.labels, inputs=inputs, default_order=order,
        networks=run.networks, fitted=fitted, overwrite=config.force,
        segments=_static(run.networks, inputs, target) if config.static else segments,
        model_card=run_card(RunFacts(name=name, run=run, quantization=quantization,
                                     parity=parity, report=report, of=of, notes=notes)))
    return BundleWritten(bundle, parity, report, of, notes)


def _order(config: ExportConfig, run: TrainedRun) -> Order:
    """The default order of the bundle."""
    if config.order is None:
        return tuple(m for m in run.record.recipe.default_order if m in run.networks)
    order = parse_order(config.order)
    if absent := [m for m in order if m not in run.networks]:
        raise UsageError(f"order is {config.order!r}, and {config.source} has no network for"
                         f" {', '.join(absent)}; allowed: orders of {', '.join(run.networks)}.")
    return order


def _static(networks: Networks, inputs: Inputs, target: Target) -> Segments:
    """Segments whose batch is fixed to the passes of one clip."""
    segments: dict[tuple[Modality, int], bytes] = {}
    for modality, network in networks.items():
        segments.update(export_segments(
            {modality: network}, inputs, weights=target.weights,
            batch=inputs[modality].num_passes))
    return segments


def _clips(config: ExportConfig, run: TrainedRun) -> _Clips:
    """Decoded calibration clips, training clips where the index has none; what cannot be read is
    left out.

    Raises:
        DataError: there is none, or they are all of one label.
    """
    arrays, labels, groups = [], [], []
    there = clips_in_splits(run.record, config.data, config.dataset)
    split: Split = ("calibration" if any(s.split == "calibration" for s in there.samples)
                    else "train")
    chosen = of_split(there, split)
    for sample in chosen:
        try:
            arrays.append(cached_clip(sample, spec=run.cache_spec, folder=config.cache))
        except SourceError:
            continue
        labels.append(run.record.labels.index(sample.label))
        groups.append(sample.group)
    trim(config.cache, limit_gb=config.cache_gb)
    if len(set(labels)) < 2:
        raise DataError(f"the {split} split has clips of {len(set(labels))} labels that can be"
                        " read; allowed: two or more.",
                        hint="WISE and the exit policy are fitted on it: add groups to it.")
    return _Clips(split, arrays, np.array(labels, np.int64), tuple(groups),
                  len(chosen) - len(arrays))


def _answers(
    config: ExportConfig, networks: Networks, inputs: Inputs, segments: Segments, clips: _Clips
) -> tuple[dict[str, ModalityLogits], list[tuple[str, str]]]:
    """Logits of every form there is, and which of them are compared."""
    deployed = deployed_answers(segments, inputs, clips.arrays)
    own = torch_answers(networks, inputs, clips.arrays)
    if not any(is_quantized(network) for network in networks.values()):
        return {DEPLOYED: deployed, FP32: own}, [(DEPLOYED, FP32)]
    answers = {DEPLOYED: deployed, FAKE_QUANT: own}
    pairs = [(DEPLOYED, FAKE_QUANT)]
    if (config.source.resolve().parent / RUN_FILE).is_file():
        parent = open_run(config.source.resolve().parent)
        answers[FP32] = torch_answers(
            {m: parent.networks[m] for m in networks}, inputs, clips.arrays)
        pairs += [(FAKE_QUANT, FP32), (DEPLOYED, FP32)]
    return answers, pairs


def _fitted_before(
    source: Path, run: TrainedRun, clips: _Clips, *, order: Order
) -> Fitted | None:
    """Weights and policies that `wise fit` found on the run's folds, which are more clips than the
    segments answer, or that must do because there are no calibration clips; None: fit them now.

    Raises:
        DataError: there are no calibration clips, and nothing was fitted on held-out ones.
    """
    if run.fitted and _rests_on_folds(source):
        return {order: fit for order, fit in run.fitted.items() if set(order) <= set(run.networks)}
    if clips.split == "calibration":
        return None
    if order not in run.fitted:
        float_run = source.parent if run.is_quantized else source
        raise DataError(f"the run has no calibration clips, and nothing was fitted for the order"
                        f" {order_key(order)} on held-out ones.",
                        hint=f"Training clips would flatter late exits. Run `edgepkd train folds"
                             f" {float_run}`, then `edgepkd wise fit {source}`; or name other clips"
                             " with --data.")
    return run.fitted


def _rests_on_folds(source: Path) -> bool:
    """Whether the fit of a run rests on its present folds.

    Raises:
        DataError: the folds are of another recipe, of other clips or of another seed.
    """
    _, record = read_fitted(source)
    return record.get("num_folds", 1) > 1 and read_folds(source) is not None


def _in_words(split: Split, *, is_fitted_here: bool) -> str:
    if split == "train":
        return "training clips, which the networks were trained on"
    return "calibration clips" + (", which the weights were fitted on" if is_fitted_here else "")


def _report(
    logits: ModalityLogits, clips: _Clips, fitted: Fitted, order: Order, run: TrainedRun,
    inputs: Inputs,
) -> Report:
    weights, policy = fitted[order]
    return report_of(answer(logits, clips.labels, weights=weights, policy=policy), order=order,
                     gmac=clip_gmac(run.networks, inputs), label_names=run.record.labels)


def _notes(clips: _Clips, parity: Parity, *, num_forms: int) -> tuple[str, ...]:
    notes = [f"drift allowed: {text}" for text in parity.refused]
    notes += [f"in doubt: {text}" for text in parity.doubts]
    if clips.split == "train":
        notes.append("no calibration clips: the forms are compared on training clips, which the"
                     " networks have seen")
    if len(clips.labels) < ENOUGH_CLIPS:
        notes.append(f"parity over {len(clips.labels)} clips only; {ENOUGH_CLIPS} or more say"
                     " something")
    if clips.num_skipped:
        notes.append(f"{clips.num_skipped} {clips.split} clips cannot be read and were left out")
    if num_forms == 2 and any(FAKE_QUANT in (row.form, row.against) for row in parity.rows):
        notes.append("the FP32 run is not beside this one: INT8 was not compared with it")
    return tuple(notes)


def _name(config: ExportConfig) -> str:
    """Name of the bundle in its manifest: that of the run, with its parent's for an INT8 one."""
    source = config.source.resolve()
    inner = (source.parent / RUN_FILE).is_file()
    return f"{source.parent.name}-{source.name}" if inner else source.name


def bundle_facts(written: BundleWritten) -> Mapping[str, Any]:
    """What was written, as plain JSON values."""
    return {"bundle": str(written.bundle.path), "name": written.bundle.manifest.name,
            "parity": [asdict(row) for row in written.parity.rows],
            "cascade": parity_facts(written.parity)["cascade"], "notes": list(written.notes),
            "calibration": {"clips": written.of, "num_clips": written.report.cascade.num_clips,
                            "cascade": written.report.cascade.value,
                            "full_chain": written.report.full_chain.value}}
