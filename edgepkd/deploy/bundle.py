"""From a trained cascade to a bundle: where it comes from, manifest, files.

Weights, temperatures and thresholds are fitted on the logits of what is deployed: those of the
exported segments on OpenVINO, for clips that no network was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.backends.cpu import get_cpu_capability

from edgepkd.bundle.manifest import CascadeEntry, Manifest, PolicyEntry, SegmentEntry, segment_file
from edgepkd.bundle.reading import Bundle
from edgepkd.bundle.writing import write_bundle
from edgepkd.cascade import Order, order_key
from edgepkd.config import NUM_EXITS, ClipSpec, DecodeSpec, Inputs, facts_of
from edgepkd.deploy.gate import Parity, parity_facts
from edgepkd.deploy.parity import Segments
from edgepkd.logits.fit_files import Fitted
from edgepkd.machine.conditions import conditions
from edgepkd.models.macs import segment_macs
from edgepkd.models.segmented import Networks
from edgepkd.quantize.network import is_quantized, weight_bits
from edgepkd.training.recipe import TrainRecipe


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a bundle says besides its segments."""

    name: str
    labels: tuple[str, ...]
    inputs: Inputs
    clip: ClipSpec
    decode: DecodeSpec
    default_order: Order


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the networks of a bundle come from, as its manifest tells."""

    recipe: TrainRecipe
    run: Mapping[str, Any] = field(default_factory=dict)
    """Which run of the recipe; plain JSON values, as the next two."""
    quantization: Mapping[str, Any] | None
    """None: it is not quantised."""
    parity: Parity
    clips: Mapping[str, Any]
    """Clips that it was fitted on, and what it is worth on clips."""

    def facts(self) -> dict[str, Any]:
        """Conditions, recipe and all else as plain JSON values."""
        return {
            **conditions(cpu_capability=get_cpu_capability()), "recipe": facts_of(self.recipe),
            **self.run, "quantization": self.quantization,
            "parity": parity_facts(self.parity), **self.clips,
        }


def write_trained(
    path: Path, origin: Origin, *, name: str, labels: tuple[str, ...], inputs: Inputs,
    default_order: Order, networks: Networks, segments: Segments, fitted: Fitted, model_card: str,
    overwrite: bool = True,
) -> Bundle:
    """Write the bundle of networks that a recipe was followed for.

    Raises:
        BundleError: as `write`.
    """
    recipe = origin.recipe
    return write(
        path, networks=networks, segments=segments, fitted=fitted, provenance=origin.facts(),
        model_card=model_card, overwrite=overwrite,
        deployment=Deployment(name=name, labels=labels, inputs=inputs, clip=recipe.clip,
                              decode=recipe.decode, default_order=default_order))


def write(
    path: Path, *, deployment: Deployment, networks: Networks, segments: Segments, fitted: Fitted,
    provenance: Mapping[str, Any], model_card: str, overwrite: bool = True,
) -> Bundle:
    """Write the bundle, with `overwrite` in place of an earlier one.

    Raises:
        BundleError: `path` holds something that is not a bundle, or a bundle without `overwrite`.
    """
    manifest = Manifest(
        name=deployment.name, labels=deployment.labels, inputs=deployment.inputs,
        clip=deployment.clip, decode=deployment.decode,
        cascade=CascadeEntry(deployment.default_order),
        segments=_entries(networks, deployment.inputs), provenance=provenance,
    )
    return write_bundle(
        path, manifest=manifest, segments=segments, model_card=model_card,
        wise={order_key(order): weights.vectors for order, (weights, _) in fitted.items()},
        policy={order_key(order): PolicyEntry(policy.temperatures, policy.thresholds)
                for order, (_, policy) in fitted.items()},
        overwrite=overwrite,
    )


def _entries(networks: Networks, inputs: Inputs) -> tuple[SegmentEntry, ...]:
    return tuple(
        SegmentEntry(
            modality=modality, exit=row.exit, file=segment_file(modality, row.exit),
            input_shape=row.input_shape, gmac=row.segment("pool_first") / 1e9,
            features_shape=None if row.exit == NUM_EXITS else row.features_shape,
            precision="int8" if is_quantized(network) else "fp32",
            weight_bits=weight_bits(network),
        )
        for modality, network in networks.items()
        for row in segment_macs(network, inputs[modality])
    )
