"""Exit training on cached features against running the trunks in every epoch.

    python -m tests.bench.bench_exits [--json PATH] [--data DIR] [--epochs N] [--seeds N]

PKD for the residual and the motion network on Weizmann's training clips (test persons untouched):
40 clips to train on, 20 of other persons to calibrate on, four views each. Both ways train the same
heads with the same batches on the same trunks; only the views differ: the cache keeps four of each
clip, the online way draws fresh ones each epoch. One thread. Reported: seconds an epoch (mean of
a whole curriculum; in the median epoch the student teaches itself and no other trunk runs), what
filling the cache costs, and whether the loss curves differ by more than those of two seeds do.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import group_folds, labels_of, read_index, split_samples
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import train_backbone
from edgepkd.training.cache import cache_spec, cached_clip
from edgepkd.training.exits import (
    CachedFeatures,
    FeatureSource,
    OnlineFeatures,
    calibration_views,
    label_rows,
    train_exits,
    view_plan,
)
from edgepkd.training.features import FeatureCache
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Silent
from edgepkd.training.recipe import TrainRecipe, load_train_recipe
from tests.bench.report import conditions, write_json

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
STUDENTS: tuple[Modality, ...] = ("mv", "residual")


class Curve(Silent):
    """Keeps what each epoch says."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def row(self, *, epoch: int, **values: float | int | str) -> None:
        self.rows.append(dict(values))

    def column(self, name: str) -> list[float]:
        return [float(row[name]) for row in self.rows]


def load(recipe: TrainRecipe, data: Path, cache: Path) -> tuple[LabelledClips, LabelledClips]:
    """Training and calibration clips."""
    train, _ = split_samples(read_index(data / recipe.index, dataset=recipe.dataset))
    fold = group_folds(train, num_folds=3, seed=1)[0]
    labels = labels_of(train)
    both = [LabelledClips([cached_clip(s, spec=cache_spec(recipe), folder=cache) for s in part],
                          [labels.index(s.label) for s in part])
            for part in (fold.fit, fold.held_out)]
    return both[0], both[1]


def trained(
    network: SegmentedNetwork, features: FeatureSource, recipe: TrainRecipe, modality: Modality, *,
    data: LabelledClips, calibration: LabelledClips, seed: int,
) -> Curve:
    """Train a copy's exits; returns its curve."""
    curve = Curve()
    copied = copy.deepcopy(network)
    train_exits(
        copied, features, label_rows(data, num_views=recipe.exits.num_views), recipe=recipe.exits,
        seed=seed, log=curve, calibration=calibration_views(
            copied, calibration, spec=recipe.inputs[modality]))
    return curve


def compare(
    modality: Modality, networks: Mapping[Modality, SegmentedNetwork], recipe: TrainRecipe, *,
    data: LabelledClips, calibration: LabelledClips, seeds: int, folder: Path,
) -> dict[str, Any]:
    """One row: both ways, all seeds."""
    plans = {m: view_plan(recipe, m) for m in MODALITIES}
    keys = [str(i) for i in range(len(data))]
    start = time.perf_counter()
    views = {m: FeatureCache(folder).views(networks[m], data.clips, plans[m], clip_keys=keys)
             for m in MODALITIES}
    fill_s = time.perf_counter() - start
    sources: dict[str, FeatureSource] = {
        "cached": CachedFeatures(views[modality], {m: views[m].logits for m in MODALITIES}),
        "online": OnlineFeatures(modality, networks, plans, data),
    }
    curves = {name: [trained(networks[modality], source, recipe, modality, data=data,
                             calibration=calibration, seed=seed) for seed in range(seeds)]
              for name, source in sources.items()}
    epochs = {name: [s for c in found for s in c.column("seconds")]
              for name, found in curves.items()}
    mean = {name: float(np.mean(values)) for name, values in epochs.items()}
    median = {name: float(np.median(values)) for name, values in epochs.items()}
    losses = {name: np.array([c.column("loss_calibration") for c in found])
              for name, found in curves.items()}
    between_ways = float(np.abs(losses["cached"] - losses["online"]).mean())
    between_seeds = np.mean([np.abs(v - v.mean(axis=0)).mean() * 2 for v in losses.values()])
    return {
        "network": modality, "rows_an_epoch": len(views[modality]),
        "fill_cache_s": round(fill_s, 2),
        "cached_epoch_s": round(mean["cached"], 4), "online_epoch_s": round(mean["online"], 3),
        "ratio": round(mean["online"] / mean["cached"], 1),
        "ratio_of_median_epochs": round(median["online"] / median["cached"], 1),
        "calibration_loss": {n: v.mean(axis=0).round(4).tolist() for n, v in losses.items()},
        "mean_difference_between_ways": round(between_ways, 4),
        "mean_difference_between_seeds": round(float(between_seeds), 4),
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_train_recipe("reproduce-weizmann")
    recipe = replace(recipe, exits=replace(recipe.exits, epochs=options.epochs, steps=0))
    data, calibration = load(recipe, options.data, options.cache)
    networks = {m: train_backbone(data, spec=recipe.inputs[m],
                                  recipe=replace(recipe.backbones[m], epochs=4, steps=0),
                                  num_classes=10, augment=recipe.augment,
                                  rule=recipe.clip.sampling, seed=1) for m in MODALITIES}
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(m, networks, recipe, data=data, calibration=calibration,
                        seeds=options.seeds, folder=Path(folder)) for m in STUDENTS]
    for row in rows:
        print(f"{row['network']:9} {row['rows_an_epoch']} views: online {row['online_epoch_s']} s, "
              f"cached {row['cached_epoch_s']} s an epoch, {row['ratio']} times faster (median "
              f"epochs: {row['ratio_of_median_epochs']}); filling "
              f"{row['fill_cache_s']} s; calibration loss: ways differ by "
              f"{row['mean_difference_between_ways']}, seeds by "
              f"{row['mean_difference_between_seeds']}")
    if options.json:
        write_json(options.json, {"conditions": conditions(
            threads=1, epochs=options.epochs, seeds=options.seeds, scheme=recipe.exits.scheme,
            trunk_epochs=4), "rows": rows})


if __name__ == "__main__":
    main()
