"""Answers to held-out clips as weights are fitted on them: of the calibration split, and of folds.

    RUN/eval/calibration-centre/logits.npz   calibration clips, by the run's own networks
    RUN/folds/logits.npz                     training clips, each by the fold that holds it out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgepkd import plain_json
from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.datasets.hashes import content_of
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import ClipLogits, FoldsFacts, load_logits
from edgepkd.pipeline.clips import clips_in_splits, of_split
from edgepkd.pipeline.step_logs import QUANTIZE_FILE
from edgepkd.pipeline.trained_run import open_run
from edgepkd.training.cache import cache_spec
from edgepkd.training.loop import hash_of
from edgepkd.training.predict import predict, views_protocol
from edgepkd.training.recipe import augment_facts
from edgepkd.training.runs import Run, read_run

FOLDS = "folds"
"""Folder of a run's folds, and the split that their pooled answers are of."""
LOGITS = "logits.npz"
CALIBRATION = Path("eval", "calibration-centre", LOGITS)


def answer_split(folder: Path, *, cache: Path) -> ClipLogits:
    """The calibration clips of the run in `folder`, answered by its networks in one view each.

    Raises:
        DataError: no run, no network, or no calibration clip that can be read. ModelError: a
            network is damaged.
    """
    run = open_run(folder)
    clips = clips_in_splits(run.record, None, None)
    inputs = {m: run.record.recipe.inputs[m] for m in run.networks}
    return predict(run.networks, of_split(clips, "calibration"), spec=run.cache_spec,
                   labels=run.record.labels, views=views_protocol(inputs), split="calibration",
                   folder=cache, root=clips.index.parent).answered


def pooled_folds(folder: Path, parts: Sequence[ClipLogits], *, seed: int) -> ClipLogits:
    """Answers of the folds of the run in `folder`, as one.

    Raises:
        DataError: a network of the run, or its clips, cannot be read.
    """
    first = parts[0]
    return replace(
        first, split=FOLDS,
        logits={m: np.concatenate([part.logits[m] for part in parts]) for m in first.logits},
        labels=np.concatenate([part.labels for part in parts]),
        groups=tuple(group for part in parts for group in part.groups),
        paths=tuple(path for part in parts for path in part.paths),
        weights_sha256=network_hashes(folder),
        folds=FoldsFacts(tuple(i for i, part in enumerate(parts) for _ in part.paths),
                         tuple(part.weights_sha256 for part in parts), belongs_to(folder), seed))


def read_folds(folder: Path) -> ClipLogits | None:
    """Pooled answers of the folds of the run in `folder`; None: it has none.

    Raises:
        DataError: they are damaged, or of another recipe, of other clips or of another seed.
    """
    path = folder / FOLDS / LOGITS
    if not path.exists():
        return None
    answered = load_logits(path)
    if answered.folds is None or answered.folds.belongs_to != belongs_to(folder):
        raise DataError(f"{path} is of folds with another recipe, seed or clips than those of"
                        f" {folder}.", hint=again(folder))
    return replace(answered, weights_sha256=network_hashes(folder))


def again(folder: Path) -> str:
    """What makes the answers of folds anew."""
    if (folder / QUANTIZE_FILE).exists():
        method = folder.name.removeprefix("int8-")
        return f"Make them again: edgepkd quantize {folder.parent} --method {method} --force"
    return f"Train them again: edgepkd train folds {folder} --force"


def belongs_to(folder: Path) -> str:
    """Hash of all that folds of the run in `folder` depend on.

    Recipe, labels, seed, training clips; of a quantised run its settings too.

    Raises:
        DataError: the run or its clips cannot be read.
    """
    run = read_run(folder)
    clips = clips_in_splits(run, None, None).samples
    facts = {"recipe": _trained_by(run), "labels": run.labels, "seed": run.seed,
             "clips": clip_names(run, [s for s in clips if s.split == "train"]),
             "int8": _int8_settings(folder)}
    return hash_of(facts)


def clip_names(run: Run, samples: Sequence[Sample]) -> list[str]:
    """Names of `samples` by content and decoding, with their groups."""
    spec = cache_spec(run.recipe)
    return sorted(f"{spec.key(content_of(s), s.form)} {s.group}" for s in samples)


def network_hashes(folder: Path) -> dict[Modality, str]:
    """SHA-256 of the weights of each network in `folder`, as its JSON file says."""
    found: dict[Modality, str] = {}
    for modality in MODALITIES:
        path = folder / f"{modality}.json"
        if path.exists():
            try:
                found[modality] = plain_json.loads(path.read_bytes())["weights_sha256"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"network file {path} cannot be read: {error!r}.",
                                hint="Train the network again.") from error
    return found


def _trained_by(run: Run) -> dict[str, Any]:
    """What of a recipe the networks depend on."""
    recipe = facts_of(run.recipe)
    return {name: recipe[name] for name in (
        "clip", "inputs", "backbones", "exits", "exit_changes", "dataset")
    } | augment_facts(run.recipe)


def _int8_settings(folder: Path) -> Mapping[str, Any] | None:
    path = folder / QUANTIZE_FILE
    if not path.exists():
        return None
    try:
        networks = plain_json.loads(path.read_bytes())["networks"]
        return {m: {"settings": one["settings"], "seed": one["seed"]}
                for m, one in networks.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.", hint="Quantise the run again, with"
                        " --force.") from error
