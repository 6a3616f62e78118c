"""A quantised network on disk: NAME.safetensors (weights and ranges) and NAME.json; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepkd.config import from_mapping
from edgepkd.errors import ConfigError, ModelError
from edgepkd.models.checkpoint import load_state, read_network_file, write_network_files
from edgepkd.models.registry import build_from_spec
from edgepkd.models.segmented import NetworkSpec, SegmentedNetwork
from edgepkd.quantize.network import insert_quantizers, quantizers, without_quantizers
from edgepkd.quantize.spec import QuantSpec

AMAX = "._amax"


def save_quantized(
    network: SegmentedNetwork, path: Path, *, spec: QuantSpec,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `path`.safetensors and `path`.json as `models.checkpoint.save_network` does, with the
    quantisation under the key `quantized`; returns the JSON's path.

    Of a `spec` for several networks, or with 'auto', the names that hold for this one are written.

    Raises:
        StorageError: they cannot be written.
    """
    found = without_quantizers(network) if spec.is_auto else ()
    mine = spec.of(network.spec.modality, found=found)
    return write_network_files(path, network, extra=extra, quantized=asdict(mine))


def holds_quantized(path: Path) -> bool:
    """Whether the network file `path`, taken without suffix, is one for `load_quantized`.

    Raises:
        ModelError: it is missing, damaged or newer.
    """
    return "quantized" in read_network_file(path)[0]


def load_quantized(path: Path) -> tuple[SegmentedNetwork, QuantSpec, dict[str, Any]]:
    """Read what `save_quantized` wrote: the network in eval mode, its spec, its `extra`.

    Raises:
        ModelError: a file is missing, damaged, newer, or holds a float network.
        MissingExtraError: ModelOpt is not installed.
    """
    document, state = read_network_file(path)
    try:
        spec = from_mapping(QuantSpec, document["quantized"], where=str(path))
        network = build_from_spec(from_mapping(NetworkSpec, document["spec"], where=str(path)))
        quantized = insert_quantizers(network, spec=spec)
        extra = dict(document.get("extra", {}))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}.json holds no valid quantised network: {error}",
                         hint="Write it with `edgepkd quantize`.") from error
    for name, quantizer in quantizers(quantized):
        if name + AMAX not in state:  # such a quantiser would find a range for every batch
            raise ModelError(f"{path}.safetensors has no range for {name}.",
                             hint="Write it with `edgepkd quantize`.")
        quantizer.amax = state[name + AMAX]
    load_state(quantized, state, source=f"{path}.safetensors")
    return quantized, spec, extra
