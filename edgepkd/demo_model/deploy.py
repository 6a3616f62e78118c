"""From trained networks and fitted numbers to a bundle on disk."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edgepkd import __version__
from edgepkd._optional import installed_version
from edgepkd.bundle import (
    Bundle,
    CascadeEntry,
    Manifest,
    PolicyEntry,
    SegmentEntry,
    segment_file,
    write_bundle,
)
from edgepkd.cascade import ExitPolicy, Order, WiseWeights, order_key
from edgepkd.config import NUM_EXITS, Modality
from edgepkd.engines.onnx import export_network
from edgepkd.engines.parity import logits_difference
from edgepkd.models.macs import macs_per_exit
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.recipes import load_recipe
from edgepkd.training.evaluate import Report
from edgepkd.training.recipe import TrainRecipe

Networks = Mapping[Modality, SegmentedNetwork]
Fitted = Mapping[Order, tuple[WiseWeights, ExitPolicy]]
Segments = dict[tuple[Modality, int], bytes]

PACKAGES = ("torch", "av", "numpy", "numba", "onnx", "scipy")


@dataclass(frozen=True)
class Exported:
    """The twelve segments as ONNX."""

    segments: Segments
    parity: float
    """Largest difference of a logit to the trained networks on the clip tried."""


def clip_gmac(networks: Networks, recipe: TrainRecipe) -> dict[Modality, tuple[float, ...]]:
    """Cost of each segment for all temporal segments of one clip, in GMAC."""
    return {
        modality: tuple(
            row.segment("pool_first") * recipe.inputs[modality].num_segments / 1e9
            for row in macs_per_exit(network, crop_px=recipe.inputs[modality].crop_px)
        )
        for modality, network in networks.items()
    }


def export(
    networks: Networks, recipe: TrainRecipe, *, example: Mapping[Modality, torch.Tensor]
) -> Exported:
    """Export all segments by the recipe `onnx-fp16` and compare them with the networks."""
    weights = load_recipe("export", "onnx-fp16")["weights"]
    segments: Segments = {}
    differences: list[float] = []
    for modality, network in networks.items():
        exported = export_network(
            network, crop_px=recipe.inputs[modality].crop_px, weights=weights
        )
        differences += logits_difference(network, example[modality], exported=exported)
        segments.update(exported)
    return Exported(segments, max(differences))


def write(
    path: Path, *, recipe: TrainRecipe, labels: tuple[str, ...], networks: Networks,
    exported: Exported, fitted: Fitted, provenance: Mapping[str, Any], model_card: str,
) -> Bundle:
    """Write the bundle, in place of an earlier one.

    Raises:
        BundleError: `path` holds something that is not a bundle.
    """
    manifest = Manifest(
        name=recipe.name, labels=labels, inputs=recipe.inputs, clip=recipe.clip,
        decode=recipe.decode, cascade=CascadeEntry(recipe.default_order),
        segments=_segment_entries(networks, recipe), provenance=provenance,
    )
    return write_bundle(
        path, manifest=manifest, segments=exported.segments, model_card=model_card,
        wise={order_key(order): weights.vectors for order, (weights, _) in fitted.items()},
        policy={order_key(order): PolicyEntry(policy.temperatures, policy.thresholds)
                for order, (_, policy) in fitted.items()},
        overwrite=True,
    )


def _segment_entries(networks: Networks, recipe: TrainRecipe) -> tuple[SegmentEntry, ...]:
    return tuple(
        SegmentEntry(
            modality=modality, exit=row.exit, file=segment_file(modality, row.exit),
            input_shape=row.input_shape, gmac=row.segment("pool_first") / 1e9,
            features_shape=None if row.exit == NUM_EXITS else row.features_shape,
        )
        for modality, network in networks.items()
        for row in macs_per_exit(network, crop_px=recipe.inputs[modality].crop_px)
    )


def provenance(recipe: TrainRecipe, report: Report, *, data: Mapping[str, Any]) -> dict[str, Any]:
    """Who made it, from what, under which conditions; plain JSON values."""
    return {
        "edgepkd": __version__,
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "recipe": asdict(recipe),
        "data": dict(data),
        "test": {
            "num_clips": report.cascade.num_clips,
            "cascade_accuracy": report.cascade.value,
            "full_chain_accuracy": report.full_chain.value,
            "mean_exit": report.mean_exit,
            "gmac_per_clip": report.gmac,
            "gmac_per_clip_full_chain": report.gmac_full,
        },
    }
