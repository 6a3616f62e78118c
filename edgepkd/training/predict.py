"""Logits of all exits of one network per modality for labelled clips, over a views protocol.

Segment places, crops and value images are those of the device (`edgepkd.video`); logits are
averaged over segments and crops before softmax (paper.md 1.4). Everything runs in eval mode, so
the answer to a clip does not depend on the clips beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgepkd.cascade import Floats
from edgepkd.config import NUM_EXITS, ClipSpec, InputSpec, Modality, check
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, ModelError, SourceError, UsageError
from edgepkd.logits.clip_logits import ClipLogits, ViewsProtocol
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.training.cache import CacheSpec, ClipArrays, cached_clip
from edgepkd.training.views import view_at
from edgepkd.video import transforms
from edgepkd.video.sampling import sample_test
from edgepkd.video.transforms import Geometry


@dataclass(frozen=True)
class SkippedClip:
    """A clip that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Predicted:
    """Logits of the clips that could be read, and the list of those that could not."""

    answered: ClipLogits
    skipped: tuple[SkippedClip, ...]


def views_protocol(
    inputs: Mapping[Modality, InputSpec], *, crops: int = 1,
    segments: Mapping[Modality, int] | None = None,
) -> ViewsProtocol:
    """The protocol that `inputs` describe, with other numbers of `segments` where given."""
    return ViewsProtocol(
        segments={m: (segments or {}).get(m, spec.num_segments) for m, spec in inputs.items()},
        crops=crops,
        crop_px={m: spec.crop_px for m, spec in inputs.items()},
        resize_px={m: spec.resize_px for m, spec in inputs.items()},
    )


def predict(
    networks: Networks,
    samples: Sequence[Sample],
    *,
    spec: CacheSpec,
    labels: tuple[str, ...],
    views: ViewsProtocol,
    split: str,
    folder: Path,
    root: Path | None = None,
    on_clip: Callable[[], None] | None = None,
) -> Predicted:
    """Answer `samples` with every exit of `networks`, one network for each modality.

    Args:
        networks: on the device they shall run on; put into eval mode.
        samples: what to answer; their labels must be among `labels`.
        spec: how clips are decoded; the same spec as in training finds the same cache entries.
        labels: names of the networks' outputs, in their order.
        views: temporal segments and crops of each clip.
        split: where the samples come from, kept with the logits.
        folder: cache of decoded clips.
        root: what the paths kept with the logits are relative to.
        on_clip: called after every clip, read or skipped.

    Raises:
        DataError: no sample, an unknown label, or no clip could be read.
        ModelError: a network is of another modality or number of classes, or its logits are not
            finite; names modality and exit.
        UsageError: a network that sees all segments at once was made for another number of them.
    """
    _check_networks(networks, labels, views)
    _check_labels(samples, labels)
    spec = _with_residual_places(spec, views)
    rows: dict[Modality, list[Floats]] = {modality: [] for modality in networks}
    kept: list[Sample] = []
    skipped: list[SkippedClip] = []
    for sample in samples:
        try:
            clip = cached_clip(sample, spec=spec, folder=folder)
        except SourceError as error:
            skipped.append(SkippedClip(str(sample.path), error.message))
        else:
            kept.append(sample)
            for modality, network in networks.items():
                logits = clip_logits_of_views(network, clip, spec=spec, views=views)
                _check_finite(logits, modality, sample)
                rows[modality].append(logits)
        if on_clip:
            on_clip()
    if not kept:
        raise DataError(f"none of {len(samples)} clips can be read; the first: "
                        f"{skipped[0].path}: {skipped[0].reason}")
    return Predicted(skipped=tuple(skipped), answered=ClipLogits(
        logits={modality: np.stack(parts) for modality, parts in rows.items()},
        labels=np.array([labels.index(s.label) for s in kept], np.int64), label_names=labels,
        groups=tuple(s.group for s in kept), paths=tuple(_name(s.path, root) for s in kept),
        split=split, views=views,
        weights_sha256={m: weights_sha256(network) for m, network in networks.items()},
    ))


@torch.no_grad()
def clip_logits_of_views(
    network: SegmentedNetwork, clip: ClipArrays, *, spec: CacheSpec, views: ViewsProtocol
) -> Floats:
    """Logits of the four exits, averaged over all views of one clip: [4, classes], float64.

    One crop at a time, so that memory does not grow with the number of crops.
    """
    network.eval()
    device = next(network.parameters()).device
    modality = network.spec.modality
    input_spec = InputSpec(
        modality, views.segments[modality], resize_px=views.resize_px[modality],
        crop_px=views.crop_px[modality], stack=network.spec.frames_per_pass > 1)
    per_crop = []
    for geometry in _geometries(views, modality):
        x = clip_view(clip, input_spec, geometry, clip_spec=spec.clip).to(device)
        exits = torch.stack(network(x))  # [4, passes, classes]
        per_crop.append(exits.double().mean(dim=1).cpu().numpy())
    averaged: Floats = np.mean(per_crop, axis=0)
    return averaged


def clip_view(
    clip: ClipArrays, spec: InputSpec, geometry: Geometry, *, clip_spec: ClipSpec
) -> Tensor:
    """All temporal segments of a clip under one crop: `spec.input_shape`."""
    places = sample_test(clip.gop_lengths, modality=spec.modality, rule=clip_spec.sampling,
                         num_segments=spec.num_segments, position=clip_spec.position)
    return view_at(clip, spec, places, geometry)


def weights_sha256(network: SegmentedNetwork) -> str:
    """SHA-256 of the network's weights: that of the .safetensors file `save_network` writes."""
    from safetensors.torch import save

    state = network.state_dict()
    return hashlib.sha256(
        save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()})
    ).hexdigest()


def _geometries(views: ViewsProtocol, modality: Modality) -> tuple[Geometry, ...]:
    resize_px, crop_px = views.resize_px[modality], views.crop_px[modality]
    if views.crops == 1:
        return (transforms.centre_crop(resize_px=resize_px, crop_px=crop_px),)
    return transforms.ten_crop(resize_px=resize_px, crop_px=crop_px)


def _with_residual_places(spec: CacheSpec, views: ViewsProtocol) -> CacheSpec:
    """`spec` that keeps the residuals `views` looks at; other signals are kept whole anyway."""
    count = views.segments.get("residual")
    if count is None or "residual" not in spec.inputs:
        return spec
    residual = replace(spec.inputs["residual"], num_segments=count)
    return replace(spec, inputs={**spec.inputs, "residual": residual})


def _check_networks(networks: Networks, labels: tuple[str, ...], views: ViewsProtocol) -> None:
    check(len(networks) >= 1, "networks", got="none", allowed="one for each modality, at least one")
    for modality, network in networks.items():
        if network.spec.modality != modality:
            raise ModelError(f"the network given for {modality} was made for "
                             f"{network.spec.modality}.", hint="Put each under its own modality.")
        if network.spec.num_classes != len(labels):
            raise ModelError(
                f"the network for {modality} has {network.spec.num_classes} classes; there are "
                f"{len(labels)} labels: {', '.join(labels)}.",
                hint="Use the labels that it was trained with.")
        stacked = network.spec.frames_per_pass
        if stacked > 1 and views.segments[modality] != stacked:
            raise UsageError(
                f"segments of {modality} is {views.segments[modality]}; allowed: {stacked}, because"
                f" the network sees all of them at once.",
                hint=f"Leave {modality} out of --segments, or train a network with"
                     f" --set inputs.{modality}.stack=false")


def _check_labels(samples: Sequence[Sample], labels: tuple[str, ...]) -> None:
    if not samples:
        raise DataError("there is no clip to answer.")
    unknown = sorted({s.label for s in samples} - set(labels))
    if unknown:
        raise DataError(f"clips are labelled {', '.join(unknown)}, which the networks do not know; "
                        f"allowed: {', '.join(labels)}.",
                        hint="Choose the data set that the run was trained on.")


def _check_finite(logits: Floats, modality: Modality, sample: Sample) -> None:
    finite = np.isfinite(logits).all(axis=1)
    assert finite.shape == (NUM_EXITS,)
    if not finite.all():
        raise ModelError(
            f"logits of {modality} exit {int(finite.argmin()) + 1} are not finite for clip "
            f"{sample.path}.", hint="The network is broken: train it again, and look at its loss.")


def _name(path: Path, root: Path | None) -> str:
    """`path` as in the index, whose folder is `root`."""
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)
