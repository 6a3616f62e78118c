"""From trained networks to a bundle: segments, their parity, WISE and policy, manifest.

Weights, temperatures and thresholds are fitted on the logits of what is deployed: those of the
exported segments on OpenVINO, for clips that no network was trained on.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from edgepkd.config import NUM_EXITS, ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.engines.onnx import WeightFormat, export_network
from edgepkd.engines.parity import Answers, ExitParity, SegmentChain, Segments
from edgepkd.errors import ModelError
from edgepkd.models.macs import ExitMacs, macs_per_exit
from edgepkd.models.registry import build_from_spec
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.quantize.network import for_export, is_quantized, weight_bits
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import ClipArrays
from edgepkd.training.fitted import Fitted
from edgepkd.training.policy import fit_policy
from edgepkd.training.recipe import WiseRecipe
from edgepkd.training.views import test_view
from edgepkd.training.wise import Convex, Labels, fit_orders, in_order

Networks = Mapping[Modality, SegmentedNetwork]
Inputs = Mapping[Modality, InputSpec]

FP32, FAKE_QUANT, DEPLOYED = "torch FP32", "torch INT8", "OpenVINO"
"""Forms of a cascade in a parity report."""
PACKAGES = ("torch", "av", "numpy", "numba", "onnx", "openvino", "scipy", "nvidia-modelopt")


# ---- segments


def export_segments(
    networks: Networks, inputs: Inputs, *, weights: WeightFormat = "fp32", batch: int | None = None
) -> Segments:
    """ONNX of every segment; quantised networks become INT8 graphs.

    Raises:
        ModelError: as `engines.onnx.export_segment`.
    """
    segments: dict[tuple[Modality, int], bytes] = {}
    for modality, network in networks.items():
        deployable = for_export(network) if is_quantized(network) else network
        segments.update(export_network(deployable, crop_px=inputs[modality].crop_px,
                                       weights=weights, batch=batch))
    return segments


def segment_macs(network: SegmentedNetwork, spec: InputSpec) -> tuple[ExitMacs, ...]:
    """MACs of each segment for one frame; a quantised network has those of its float one."""
    return macs_per_exit(build_from_spec(network.spec), crop_px=spec.crop_px)


def clip_gmac(networks: Networks, inputs: Inputs) -> dict[Modality, tuple[float, ...]]:
    """Cost of each segment for all temporal segments of one clip, in GMAC."""
    return {
        modality: tuple(row.segment("pool_first") * inputs[modality].num_segments / 1e9
                        for row in segment_macs(network, inputs[modality]))
        for modality, network in networks.items()
    }


# ---- answers


def torch_answers(networks: Networks, inputs: Inputs, clips: Sequence[ClipArrays]) -> Answers:
    """Logits of the networks for the test views of `clips`: [N, 4, classes] each."""
    return {m: clip_logits(network, clips, spec=inputs[m]).double().numpy()
            for m, network in networks.items()}


def deployed_answers(
    segments: Segments, inputs: Inputs, clips: Sequence[ClipArrays]
) -> Answers:
    """Logits of the exported segments on OpenVINO: [N, 4, classes] each."""
    answers: dict[Modality, Any] = {}
    for modality in dict.fromkeys(m for m, _ in segments):
        spec = inputs[modality]
        chain = SegmentChain(segments, modality, frames=spec.num_segments)
        answers[modality] = np.stack([chain.clip_logits(test_view(clip, spec).numpy())
                                      for clip in clips])
    return answers


def check_agreement(
    rows: Sequence[ExitParity], *, form: str, against: str, floor: float
) -> tuple[str, ...]:
    """Exits of which `form` and `against` agree on fewer clips than `floor` says, in words."""
    return tuple(
        f"{row.modality}_{row.exit} of {form} gives the label of {against} for"
        f" {100 * row.agreement:.1f} % of {row.num_clips} clips; allowed: {100 * floor:g} % or more"
        for row in rows if (row.form, row.against) == (form, against) and row.agreement < floor)


def refuse_drift(drifts: Sequence[str]) -> None:
    """Raise unless every exit agrees.

    Raises:
        ModelError: names the exits.
    """
    if drifts:
        raise ModelError(f"{'; '.join(drifts)}.",
                         hint="Look at the parity report; quantise by QAD, keep sensitive layers"
                              " float, or pass --allow-drift, which the manifest then records.")


# ---- WISE and policy


def fit_deployed(
    logits: Answers, labels: Labels, *, orders: Sequence[Order], settings: WiseRecipe
) -> Fitted:
    """WISE weights and exit policy of each order, from deployed logits of held-out clips."""
    weights = fit_orders(logits, labels, orders=orders, method=Convex(l2=settings.l2))
    return {order: (weights[order], fit_order_policy(logits, labels, weights=weights[order],
                                                     settings=settings)) for order in orders}


def fit_order_policy(
    logits: Answers, labels: Labels, *, weights: WiseWeights, settings: WiseRecipe
) -> ExitPolicy:
    """The exit policy that goes with `weights`."""
    return fit_policy(
        in_order(logits, weights.order), labels, weights=weights,
        accuracy_loss=settings.accuracy_loss, min_confidence=settings.min_confidence,
        safety_clips=settings.safety_clips)


# ---- the bundle


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a bundle says besides its segments."""

    name: str
    labels: tuple[str, ...]
    inputs: Inputs
    clip: ClipSpec
    decode: DecodeSpec
    default_order: Order


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


def conditions() -> dict[str, Any]:
    """Versions and processor that a bundle was made with; plain JSON values."""
    return {
        "edgepkd": __version__,
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def parity_facts(rows: Sequence[ExitParity], *, drifts: Sequence[str]) -> dict[str, Any]:
    """A parity report as plain JSON values; `drifts` were allowed."""
    return {"exits": [asdict(row) for row in rows], "allowed_drift": list(drifts)}
