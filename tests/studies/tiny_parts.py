"""A recipe, samples and units that train in a second, on clips without a video behind them."""

from __future__ import annotations

from pathlib import Path

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import Sample, read_index
from edgepkd.studies.parts import Part
from edgepkd.studies.units import Unit
from edgepkd.training.recipe import TrainRecipe, load_train_recipe


def tiny_recipe() -> TrainRecipe:
    """Narrow networks, one epoch."""
    changes: dict[str, object] = {"exits.epochs": 2, "exits.num_views": 2, "exits.batch_views": 4}
    for modality in MODALITIES:
        changes |= {f"inputs.{modality}.{key}": value for key, value in (
            ("num_segments", 2), ("resize_px", 32), ("crop_px", 32))}
        changes[f"backbones.{modality}"] = {
            "backbone": "resnet18", "width": 0.125, "epochs": 1, "learning_rate": 1e-2,
            "train_segments": 1, "batch_clips": 2}
    return load_train_recipe("small", changes)


def samples(start: int, count: int) -> tuple[Sample, ...]:
    """Clips `start`.mp4 and on, labels a and b in turn, each a group of its own."""
    return tuple(Sample(Path(f"{i}.mp4"), "ab"[i % 2], f"g{i}", "train", sha256=f"{i:064x}")
                 for i in range(start, start + count))


def tiny_part(folder: Path, name: str = "final") -> Part:
    """Four clips to train on, two to answer."""
    return Part(name, samples(0, 4), samples(10, 2), ("a", "b"), tiny_recipe(),
                folder / "run", folder / "cache")


def tiny_unit(folder: Path, *, exit_seeds: tuple[int, ...] = (7,)) -> Unit:
    """One fold of `tiny_part`'s clips."""
    return Unit(tiny_part(folder, "trunk1-fold0"), exit_seeds)


def write_index(
    path: Path, *, num_groups: int, num_test: int = 0, dataset: str = "Made"
) -> tuple[Sample, ...]:
    """An index of groups of two clips, labels a and b, the last `num_test` groups of split test.

    The clips are there, and no videos.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["path,label,dataset,group,split"]
    for number in range(2 * num_groups):
        (path.parent / f"{number}.avi").write_bytes(bytes([number]))
        split = "test" if number >= 2 * (num_groups - num_test) else "train"
        rows.append(f"{number}.avi,{'ab'[number % 2]},{dataset},g{number // 2},{split}")
    path.write_text("\n".join(rows) + "\n")
    return read_index(path, dataset=dataset)
