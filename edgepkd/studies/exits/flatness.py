"""Flatness of the study's trunks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd import plain_json
from edgepkd.config import MODALITIES, Modality
from edgepkd.files import write_atomically
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.studies.parts import load_clips
from edgepkd.studies.units import Unit, load_trunks
from edgepkd.training.features import trunk_hash
from edgepkd.training.flatness import Batch, epsilon_sharpness, hessian_trace
from edgepkd.training.loop import hash_of
from edgepkd.training.views import test_view

BATCH_CLIPS = 3


def flatness_job(unit: Unit, *, num_clips: int, num_probes: int) -> str:
    """Measure the three trunks of a unit on clips they were trained on; kept in a file."""
    torch.set_num_threads(1)
    path = flatness_path(unit)
    networks = load_trunks(unit.part)
    key = hash_of({"clips": num_clips, "probes": num_probes,
                   "trunks": {m: trunk_hash(network) for m, network in networks.items()}})
    if _kept(path, key):
        return f"{unit.part.recipe.name} {unit.part.name}: flatness kept from an earlier run"
    found = {m: _measure(unit, m, networks[m], num_clips, num_probes) for m in MODALITIES}
    write_atomically(path, plain_json.dumps({"key": key, "networks": found}, indent=1).encode())
    return f"{unit.part.recipe.name} {unit.part.name}: flatness"


def flatness_path(unit: Unit) -> Path:
    """Where the result lies."""
    return unit.part.folder / unit.part.name / "flatness.json"


def read_flatness(unit: Unit) -> dict[str, Any]:
    """Measures of the three networks."""
    networks: dict[str, Any] = plain_json.loads(flatness_path(unit).read_text())["networks"]
    return networks


def _kept(path: Path, key: str) -> bool:
    try:
        return bool(plain_json.loads(path.read_text())["key"] == key)
    except (OSError, ValueError, KeyError):
        return False


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
