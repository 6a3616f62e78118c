"""What held-out groups get without edgepkd: pictures, a frozen network and a linear classifier.

Eight frames of a clip, evenly spaced and scaled to 224 x 224 px, go through an EfficientNet-Lite0
with its ImageNet weights; the mean of their features feeds a logistic regression (scaled features,
C = 1). No motion, nothing fine-tuned: accuracy that any user has in a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from edgepkd._optional import require
from edgepkd.datasets.index import Sample
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.models.weights import IMAGENET_MEAN, IMAGENET_STD
from edgepkd.studies.parts import contents, holds_arrays, write_arrays
from edgepkd.studies.units import Unit
from edgepkd.training.loop import hash_of

FRAMES, PX = 8, 224
VERSION = 1

Features = NDArray[np.float64]


def floor_path(units: Sequence[Unit]) -> Path:
    """Whether each clip of a set is answered rightly; of any seed, since nothing is drawn."""
    return units[0].part.folder / "rgb-floor.npz"


def floor_job(units: Sequence[Unit]) -> str:
    """Fit a classifier for each fold of one set, and answer the clips that it holds out."""
    torch.set_num_threads(1)
    path, title = floor_path(units), units[0].part.recipe.name
    folds = [(*contents(unit.part.fit), *contents(unit.part.answer)) for unit in units]
    key = hash_of({"version": VERSION, "folds": folds})
    if holds_arrays(path, key):
        return f"{title}: RGB floor kept from an earlier run"
    network = build_network("efficientnet_lite0", modality="iframe", num_classes=2,
                            pretrained="imagenet").eval()
    samples = tuple(dict.fromkeys(s for unit in units for s in (*unit.part.fit, *unit.part.answer)))
    features = dict(zip(samples, features_of(network, samples), strict=True))

    def rows(part: Sequence[Sample]) -> tuple[Features, list[str]]:
        return np.stack([features[s] for s in part]), [s.label for s in part]

    right = np.concatenate([fitted_right(*rows(unit.part.fit), *rows(unit.part.answer))
                            for unit in units])
    write_arrays(path, {"key": np.array(key), "right": right})
    return f"{title}: RGB floor {100 * right.mean():.1f} %"


def read_floor(units: Sequence[Unit]) -> NDArray[np.bool_]:
    """Whether each clip is answered rightly, fold by fold: [N].

    Raises:
        OSError: the set has no floor yet.
    """
    found: NDArray[np.bool_] = np.load(floor_path(units))["right"]
    return found


def fitted_right(
    fit: Features, fit_labels: Sequence[str], answer: Features, labels: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether a logistic regression on `fit` [N, D] is right about each of `answer` [M, D]: [M].

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", purpose="The RGB floor")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(fit, list(fit_labels))
    right: NDArray[np.bool_] = model.predict(answer) == np.array(labels)
    return right


@torch.no_grad()
def features_of(network: SegmentedNetwork, samples: Sequence[Sample]) -> Features:
    """Mean features [N, D] of the frames of each clip."""
    rows = []
    for sample in samples:
        x = frames_of(sample.path)
        for segment in network:
            x = segment.trunk(x)
        rows.append(x.mean(dim=(0, 2, 3)).double().numpy())
    return np.stack(rows)


def frames_of(path: Path) -> torch.Tensor:
    """FRAMES evenly spaced frames of a clip, as the network takes them: [FRAMES, 3, PX, PX]."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    pictures = np.stack([frames[i].to_ndarray(width=PX, height=PX, format="rgb24")
                         for i in chosen])
    scaled = (pictures / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()
