"""What `train backbone` and `train exits` are asked, and what each yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from edgepkd.config import MODALITIES, Modality, check
from edgepkd.errors import UsageError
from edgepkd.training.entries import DEFAULT_GB, check_limit
from edgepkd.training.execution import Execution
from edgepkd.training.features import FeatureCache
from edgepkd.training.recipe import LastTeacher, Scheme

DEFAULT_RECIPE = "small"
PRESETS = ("quick", DEFAULT_RECIPE, "best")
"""Recipes for own data that differ in how long they train, the shortest first."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What both steps share."""

    run: Path
    """Folder of the run."""
    data: Path | None = None
    """Folder with an index.csv, or the index; None: that of the run."""
    dataset: str | None = None
    """Rows of the index with this value in column `dataset`."""
    recipe: str | None = None
    """Recipe of `calibration/` or a TOML file; None: the run's, or DEFAULT_RECIPE."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Single values of the recipe: {"backbones.mv.epochs": 10}."""
    modalities: tuple[Modality, ...] = MODALITIES
    seed: int | None = None
    """None: the recipe's."""
    resume: bool = False
    """Keep what is done, go on from checkpoints."""
    force: bool = False
    """Replace networks that are there."""
    cache: Path = Path("runs/cache")
    """Where decoded clips are kept."""
    cache_gb: float = DEFAULT_GB
    """Most that this folder may hold."""
    jobs: int = 2
    """Processes that decode."""
    threads: int | None = None
    """Of PyTorch. Weights are equal bit by bit only for equal numbers."""
    execution: Execution = field(default_factory=Execution)
    tensorboard: bool = False
    console: Console | None = None
    """Where progress is shown."""

    def __post_init__(self) -> None:
        check(0 < len(self.modalities) == len(set(self.modalities) & set(MODALITIES)), "modality",
              got=self.modalities, allowed=f"each of {', '.join(MODALITIES)} at most once")
        check_limit(self.cache_gb)
        check(self.jobs >= 1, "jobs", got=self.jobs, allowed="1 or more")
        check(self.threads is None or self.threads >= 1, "threads", got=self.threads,
              allowed="1 or more")
        if self.resume and self.force:
            raise UsageError("--resume keeps what is there and --force replaces it.",
                             hint="Give one of them.")


@dataclass(frozen=True, kw_only=True)
class ExitsConfig(TrainConfig):
    """`train exits` beyond TrainConfig; None: the recipe's."""

    method: Scheme | None = None
    last_teacher: LastTeacher | None = None
    online: bool = False
    """Fresh views in every epoch, trunks run for each batch."""
    features: FeatureCache = field(default_factory=lambda: FeatureCache(Path("runs/features")))
    out: Path | None = None
    """Another run's folder, which gets copies of the trunks and the exits; None: `run` itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.method is None or self.method in get_args(Scheme), "method", got=self.method,
              allowed=", ".join(get_args(Scheme)))


@dataclass(frozen=True)
class StepDone:
    """A trained network."""

    step: str
    """'backbone' or 'exits'."""
    modality: Modality
    path: Path
    """Of its JSON file."""
    kept: bool
    """True: it was there already, made with the same settings from the same clips."""
    values: Mapping[str, Any]
    """Of the last epoch, as in results.csv."""
    seconds: float
    notes: tuple[str, ...] = ()
    """What is wrong with it, and what may help."""
