"""What `quantize` is asked, and what it yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from edgepkd.config import MODALITIES, Modality, check
from edgepkd.engines.targets import load_target
from edgepkd.errors import UsageError
from edgepkd.int8 import METHODS, QuantMethod
from edgepkd.quantize.fidelity import ExitFidelity
from edgepkd.quantize.sensitivity import LayerSensitivity
from edgepkd.quantize.spec import Calibrator
from edgepkd.training.entries import DEFAULT_GB, check_limit
from edgepkd.training.execution import Execution

DEFAULT_RECIPE = "int8"
WEIGHT_BITS = "quantizer.weight_bits"


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What to quantise, how, and on which clips."""

    run: Path
    """Folder of a trained run, with all exits."""
    method: QuantMethod = "ptq"
    recipe: str = DEFAULT_RECIPE
    """Recipe of `calibration/` or a TOML file."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Single values of the recipe: {"finetune.epochs": 10}."""
    modalities: tuple[Modality, ...] | None = None
    """None: all that the run has."""
    calibrator: Calibrator | None = None
    """None: the recipe's, as in the next one."""
    calibration_clips: int | None = None
    target: str | None = None
    """Recipe of `export/` or a TOML file: what the networks are for decides the bits of weights;
    None: the recipe does, and its default suits every target."""
    data: Path | None = None
    """Other clips to calibrate and train on: a folder with an index, or the index; None: those of
    the run."""
    dataset: str | None = None
    """Rows of the index with this value in column `dataset`."""
    seed: int | None = None
    """None: the run's."""
    resume: bool = False
    """Keep what is done, go on from checkpoints."""
    force: bool = False
    """Replace networks that are there; few clips will do."""
    force_few: bool = False
    """Few clips will do, though their ranges are chance."""
    cache: Path = Path("runs/cache")
    """Where decoded clips are kept."""
    cache_gb: float = DEFAULT_GB
    """Most that this folder may hold."""
    jobs: int = 2
    """Processes that decode."""
    threads: int | None = None
    """Of PyTorch. Weights are equal bit by bit only for equal numbers."""
    execution: Execution = field(default_factory=Execution)
    sensitivity: bool = False
    """Also measure what each layer alone loses, before any training."""
    tensorboard: bool = False
    console: Console | None = None
    """Where progress is shown."""

    def __post_init__(self) -> None:
        check(self.method in METHODS, "method", got=self.method, allowed=", ".join(METHODS))
        named = self.modalities
        check(named is None or 0 < len(named) == len(set(named) & set(MODALITIES)), "modality",
              got=named, allowed=f"each of {', '.join(MODALITIES)} at most once")
        check_limit(self.cache_gb)
        check(self.jobs >= 1, "jobs", got=self.jobs, allowed="1 or more")
        check(self.threads is None or self.threads >= 1, "threads", got=self.threads,
              allowed="1 or more")
        if self.resume and self.force:
            raise UsageError("--resume keeps what is there and --force replaces it.",
                             hint="Give one of them.")
        if self.target and WEIGHT_BITS in self.changes:
            raise UsageError(f"both --target and --set {WEIGHT_BITS} say how many bits weights "
                             "have.", hint="Give one of them.")

    @property
    def out(self) -> Path:
        """Folder of the quantised run."""
        return self.run / f"int8-{self.method}"

    @property
    def all_changes(self) -> dict[str, Any]:
        """`changes` with what has a field of its own.

        Raises:
            ConfigError: there is no such target.
        """
        own = {"quantizer.calibrator": self.calibrator, "calibration_clips": self.calibration_clips,
               WEIGHT_BITS: self.target and load_target(self.target).weight_bits}
        return {**self.changes, **{key: value for key, value in own.items() if value is not None}}


@dataclass(frozen=True)
class QuantDone:
    """A quantised network."""

    method: QuantMethod
    modality: Modality
    path: Path
    """Of its JSON file."""
    kept: bool
    """True: it was there already, made with the same settings from the same clips and networks."""
    values: Mapping[str, Any]
    """Loss, accuracies and divergence from FP32; of QAT and QAD the last row of results.csv."""
    seconds: float
    sensitivity: tuple[LayerSensitivity, ...] = ()
    """Where it was asked for: the worst layer first."""
    exits: tuple[ExitFidelity, ...] = ()
    """Against the FP32 network; none: an older version quantised it."""
    judged_on: str = "calibration"
    """Clips that `exits` and `values` are of: calibration or training."""
    advice: str = ""
    """Command that can help where an exit fell."""

    @property
    def fallen(self) -> str:
        """What to warn of; empty: nothing."""
        texts = [
            f"{self.modality}_{one.exit} falls from {100 * one.accuracy_fp32:.1f} to "
            f"{100 * one.accuracy_int8:.1f} %, and keeps {100 * one.agreement:.1f} % of the "
            f"labels{f' of {one.num_clips} clips' if one.num_clips else ''}"
            for one in self.exits if one.fell]
        return "; ".join(texts)
