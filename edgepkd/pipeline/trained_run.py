"""A run whose training is over, as other verbs read it: networks, and what was fitted to them.

    mv.safetensors + mv.json      one network per modality, with all its exits; not all need exist;
                                  float, or quantised in a folder that `quantize` wrote
    wise.json policy.json wise-fit.json   what `wise fit` wrote, where it ran
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepkd import plain_json
from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import ViewsProtocol
from edgepkd.logits.fit_files import RECORD, Fitted, read_fitted
from edgepkd.models.checkpoint import load_network
from edgepkd.models.macs import macs_per_exit
from edgepkd.models.registry import build_from_spec
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.pipeline.step_logs import QUANTIZE_FILE
from edgepkd.quantize.checkpoint import holds_quantized, load_quantized
from edgepkd.quantize.network import is_quantized
from edgepkd.training.cache import CacheSpec, cache_spec
from edgepkd.training.health import Health, findings, health_of_network
from edgepkd.training.predict import weights_sha256
from edgepkd.training.runs import Run, read_run


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A training run with one network per modality."""

    record: Run
    """What run.json says."""
    networks: Mapping[Modality, SegmentedNetwork]
    """Of the modalities that were trained."""
    hashes: Mapping[Modality, str]
    """SHA-256 of their weights."""
    fitted: Fitted
    """Empty where `wise fit` did not run."""
    quantization: Mapping[str, Any] | None = None
    """What quantize.json says, where `quantize` wrote the run."""
    health: Mapping[Modality, Health] = field(default_factory=dict)
    """What was looked at when training ended; of networks that older versions trained, nothing."""

    @property
    def is_quantized(self) -> bool:
        """Whether `edgepkd quantize` wrote any of the networks."""
        return any(is_quantized(network) for network in self.networks.values())

    @property
    def findings(self) -> tuple[str, ...]:
        """What was wrong with the networks when their training ended, a line each."""
        return tuple(text for m, health in self.health.items() for text in findings(m, health))

    @property
    def cache_spec(self) -> CacheSpec:
        """How clips are decoded: as in training, so that its cache entries are found."""
        return cache_spec(self.record.recipe)


def open_run(path: Path, *, device: str = "cpu") -> TrainedRun:
    """Read a run's record, its networks and what was fitted to them.

    Raises:
        DataError: no run, a damaged record, no network, or a fit that belongs to other networks.
        ModelError: a network is damaged.
        MissingExtraError: a network is quantised, and ModelOpt is not installed.
    """
    record = read_run(path)
    networks = {m: read_network(record.network(m)).to(device) for m in MODALITIES
                if (path / f"{m}.safetensors").exists() or (path / f"{m}.json").exists()}
    if not networks:
        raise DataError(f"{path} has no network with all exits; looked for "
                        f"{', '.join(f'{m}.safetensors' for m in MODALITIES)}.",
                        hint="Train them with `edgepkd train exits`.")
    hashes = {m: weights_sha256(network) for m, network in networks.items()}
    health = {m: found for m in networks if (found := health_of_network(record.network(m)))}
    return TrainedRun(record, networks, hashes, _fitted(path, hashes), _quantization(path), health)


def read_network(path: Path) -> SegmentedNetwork:
    """A float or a quantised network, whichever the files are of, in eval mode.

    Raises:
        as `open_run`.
    """
    return load_quantized(path)[0] if holds_quantized(path) else load_network(path)[0]


def _quantization(path: Path) -> dict[str, Any] | None:
    file = path / QUANTIZE_FILE
    try:
        return dict(plain_json.loads(file.read_bytes())) if file.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged: {error}.",
                        hint="Quantise the float run again, with --force.") from error


def _fitted(path: Path, hashes: Mapping[Modality, str]) -> Fitted:
    """WISE weights and policies of the run, which must be those of its very networks."""
    if not (path / RECORD).is_file() and not (path / "wise.json").is_file():
        return {}
    fitted, record = read_fitted(path)
    for modality, digest in record.get("weights_sha256", {}).items():
        if modality in hashes and digest != hashes[modality]:
            raise DataError(f"{path / 'wise.json'} was fitted to other weights of {modality}: "
                            f"{digest[:12]}…, not {hashes[modality][:12]}….",
                            hint="Run `edgepkd wise fit --force`; logits of different checkpoints "
                                 "are never mixed.")
    return fitted


def clip_gmac(run: TrainedRun, views: ViewsProtocol) -> dict[Modality, tuple[float, ...]]:
    """Cost of each segment, pool-first heads, for one clip with all its views, in GMAC."""
    plain = {m: build_from_spec(network.spec) for m, network in run.networks.items()}
    return {
        modality: tuple(
            row.segment("pool_first") * views.crops
            * (views.segments[modality] // network.spec.frames_per_pass) / 1e9
            for row in macs_per_exit(network, crop_px=views.crop_px[modality]))
        for modality, network in plain.items()
    }
