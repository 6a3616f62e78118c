"""A run whose training is over, as other verbs read it: networks, and what was fitted to them.

    mv.safetensors + mv.json      one network per modality, with all its exits; not all need exist
    wise.json policy.json wise-fit.json   what `wise fit` wrote, where it ran
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import DataError
from edgepkd.models.checkpoint import load_network
from edgepkd.models.macs import macs_per_exit
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import CacheSpec
from edgepkd.training.fitted import RECORD, Fitted, read_fitted
from edgepkd.training.jobs import cache_spec
from edgepkd.training.logits import ViewsProtocol
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

    @property
    def cache_spec(self) -> CacheSpec:
        """How clips are decoded: as in training, so that its cache entries are found."""
        return cache_spec(self.record.recipe)


def open_run(path: Path, *, device: str = "cpu") -> TrainedRun:
    """Read a run's record, its networks and what was fitted to them.

    Raises:
        DataError: no run, a damaged record, no network, or a fit that belongs to other networks.
        ModelError: a network is damaged.
    """
    record = read_run(path)
    networks = {m: load_network(record.network(m))[0].to(device) for m in MODALITIES
                if (path / f"{m}.safetensors").exists() or (path / f"{m}.json").exists()}
    if not networks:
        raise DataError(f"{path} has no network with all exits; looked for "
                        f"{', '.join(f'{m}.safetensors' for m in MODALITIES)}.",
                        hint="Train them with `edgepkd train exits`.")
    hashes = {m: weights_sha256(network) for m, network in networks.items()}
    return TrainedRun(record, networks, hashes, _fitted(path, hashes))


def _fitted(path: Path, hashes: Mapping[Modality, str]) -> Fitted:
    """WISE weights and policies of the run, which must be those of its very networks."""
    if not (path / RECORD).is_file() and not (path / "wise.json").is_file():
        return {}
    fitted, record = read_fitted(path)
    for modality, digest in record.get("weights_sha256", {}).items():
        if modality in hashes and digest != hashes[modality]:
            raise DataError(f"{path / 'wise.json'} was fitted to other weights of {modality}: "
                            f"{digest[:12]}…, not {hashes[modality][:12]}….",
                            hint="Run `edgepkd wise fit` again; logits of different checkpoints "
                                 "are never mixed.")
    return fitted


def clip_gmac(run: TrainedRun, views: ViewsProtocol) -> dict[Modality, tuple[float, ...]]:
    """Cost of each segment, pool-first heads, for one clip with all its views, in GMAC."""
    return {
        modality: tuple(
            row.segment("pool_first") * views.segments[modality] * views.crops / 1e9
            for row in macs_per_exit(network, crop_px=views.crop_px[modality]))
        for modality, network in run.networks.items()
    }
