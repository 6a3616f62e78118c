"""Flatness of the study's trunks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd import plain_json
from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import DataError
from edgepkd.files import write_atomically
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.studies.parts import TRUNK, UNREADABLE, load_clips, load_networks
from edgepkd.studies.units import Unit
from edgepkd.training.features import trunk_hash
from edgepkd.training.flatness import Batch, epsilon_sharpness, hessian_trace
from edgepkd.training.loop import hash_of
from edgepkd.training.views import test_view

BATCH_CLIPS = 3


def flatness_job(unit: Unit, *, num_clips: int, num_probes: int) -> str:
    """Measure the three trunks of a unit on clips they were trained on; kept in a file."""
    torch.set_num_threads(1)
    path = flatness_path(unit)
    networks = load_networks(unit.part, TRUNK)
    key = hash_of({"clips": num_clips, "probes": num_probes,
                   "trunks": {m: trunk_hash(network) for m, network in networks.items()}})
    if _kept(path, key):
        return f"{unit.title}: flatness kept from an earlier run"
    found = {m: _measure(unit, m, networks[m], num_clips, num_probes) for m in MODALITIES}
    write_atomically(path, plain_json.dumps({"key": key, "networks": found}, indent=1).encode())
    return f"{unit.title}: flatness"


def flatness_path(unit: Unit) -> Path:
    """Where the result lies."""
    return unit.part.path("flatness.json")


def read_flatness(unit: Unit) -> dict[str, Any]:
    """Measures of the three networks.

    Raises:
        DataError: they are not there, or damaged.
    """
    path = flatness_path(unit)
    try:
        return dict(_read(path)["networks"])
    except UNREADABLE as error:
        raise DataError(f"the flatness {path} cannot be read: {error}.",
                        hint="Start the study without --report-only; it makes what is missing."
                        ) from error


def _kept(path: Path, key: str) -> bool:
    try:
        return bool(_read(path)["key"] == key)
    except UNREADABLE:
        return False


def _read(path: Path) -> Any:
    return plain_json.loads(path.read_text(encoding="utf-8"))


def _measure(
    unit: Unit, modality: Modality, network: SegmentedNetwork, num_clips: int, num_probes: int
) -> dict[str, Any]:
    batches = _batches(unit, modality, num_clips)
    trace = hessian_trace(network, batches, num_probes=num_probes)
    sharp = epsilon_sharpness(network, batches)
    return {"backbone": network.spec.backbone, "trace": asdict(trace),
            "trace_per_parameter": trace.per_parameter, "sharpness": asdict(sharp)}


def _batches(unit: Unit, modality: Modality, num_clips: int) -> list[Batch]:
    """Clips spread over the training side, the same for every network."""
    fit = unit.part.fit
    chosen = [fit[i] for i in np.linspace(0, len(fit) - 1, min(num_clips, len(fit))).astype(int)]
    data = load_clips(unit.part, tuple(chosen))
    views = [test_view(clip, unit.part.recipe.inputs[modality]) for clip in data.clips]
    labels = torch.tensor(data.labels)
    return [(torch.stack(views[i : i + BATCH_CLIPS]), labels[i : i + BATCH_CLIPS])
            for i in range(0, len(views), BATCH_CLIPS)]
