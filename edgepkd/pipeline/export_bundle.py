"""The verb `export` for a bundle: engines for a target, with no torch."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edgepkd.bundle.engines import AskedPrecision, Via
from edgepkd.bundle.manifest import MANIFEST
from edgepkd.bundle.reading import read_bundle
from edgepkd.config import check
from edgepkd.errors import UsageError

if TYPE_CHECKING:
    from edgepkd.engines.build import BuildEvent

RUN = "run.json"


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `export`; None means: as the recipe says."""

    source: Path
    """A bundle, or the folder of a training run."""
    target: str
    """Name of a recipe in `export/`, or the path of a TOML file."""
    precision: AskedPrecision | None = None
    workspace_mb: int | None = None
    max_frames: int | None = None
    """Largest batch; None: the temporal segments of a clip."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None
    resume: bool = False
    force: bool = False
    """Build although the engines that are there are what is asked for."""
    require_timing_cache: bool = False
    via: Via = "onnx"
    out: Path | None = None
    """Of a run: the bundle to write."""
    allow_drift: bool = False
    """Of a run: go on although the gate refuses the cascade."""
    order: str | None = None
    """Of a run: the bundle's default order, `mv,residual`; None: the recipe's."""
    static: bool = False
    """Of a run: the batch of the ONNX files is fixed to the temporal segments of one clip."""
    data: Path | None = None
    """Of a run: index of its calibration clips; None: that which it was trained with."""
    dataset: str | None = None
    cache: Path = Path("runs/cache")
    """Of a run: where decoded clips are kept."""
    cache_gb: float = 20.0
    """Most that this folder may hold."""

    def __post_init__(self) -> None:
        check(self.precision is None or self.precision in get_args(AskedPrecision), "precision",
              got=self.precision, allowed=", ".join(get_args(AskedPrecision)))
        check(self.cache_gb > 0, "cache-gb", got=self.cache_gb, allowed="above 0, in GB")
        check(self.via in get_args(Via), "via", got=self.via, allowed=", ".join(get_args(Via)))


def is_bundle(source: Path) -> bool:
    """Whether `source` is to be read as a bundle; else it is the folder of a training run."""
    # os.path: a name that is too long is no file, and no error here.
    return os.path.isfile(source / MANIFEST) or not os.path.isfile(source / RUN)


def export_bundle(config: ExportConfig) -> Generator[BuildEvent, None, None]:
    """Build the engines of bundle `config.source`; the last event is EnginesBuilt.

    Raises:
        UsageError: an option that goes only with a run; a setting the target cannot do.
        BundleError: the bundle is not whole, or of a newer schema.
        ModelError, StorageError, MissingExtraError: as `engines.build.build_engines`.
    """
    from edgepkd.engines.build import build_engines
    from edgepkd.engines.request import Request
    from edgepkd.engines.targets import load_target

    of_runs = {"--out": config.out, "--allow-drift": config.allow_drift or None,
               "--order": config.order, "--static": config.static or None, "--data": config.data,
               "--dataset": config.dataset,
               "--via": config.via if config.via != "onnx" else None}
    given = [option for option, value in of_runs.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)} is given with a bundle; allowed: only with the"
                         " folder of a training run, which still has its network.",
                         hint="Give the run folder: edgepkd export RUN --target ...")
    target = load_target(config.target)
    request = Request(
        bundle=read_bundle(config.source), target=target, precision=config.precision,
        workspace_mb=config.workspace_mb, max_frames=config.max_frames,
        version_compatible=config.version_compatible,
        hardware_compatible=config.hardware_compatible, dla=config.dla,
        require_timing_cache=config.require_timing_cache)
    yield from build_engines(request, resume=config.resume, force=config.force)
