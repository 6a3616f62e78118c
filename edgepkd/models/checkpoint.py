"""A network on disk: NAME.safetensors with its weights and NAME.json with all else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgepkd import plain_json
from edgepkd._optional import require
from edgepkd.config import facts_of, from_mapping
from edgepkd.errors import ConfigError, ModelError
from edgepkd.files import write_atomically
from edgepkd.models.registry import build_from_spec
from edgepkd.models.segmented import NetworkSpec, SegmentedNetwork
from edgepkd.models.weights import refuse_mismatch

SCHEMA_VERSION = 1


def save_network(
    network: SegmentedNetwork, path: Path, *, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write `path`.safetensors and `path`.json; returns the JSON's path.

    `path` is taken without either suffix. Both files are written under temporary names and
    renamed; the JSON holds the SHA-256 of the weights, so a mixed pair is noticed. `extra` is kept
    as it is (plain JSON values).
    """
    return write_network_files(path, network, extra=extra)


def write_network_files(
    path: Path, network: SegmentedNetwork, *, extra: Mapping[str, Any] | None = None, **more: Any
) -> Path:
    """As `save_network`, with `more` keys in the JSON."""
    require("safetensors", purpose="Saving a network")
    from safetensors.torch import save

    weights_path, json_path = _paths(path)
    state = network.state_dict()
    weights = save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()})
    document = {
        "schema_version": SCHEMA_VERSION,
        "spec": facts_of(network.spec),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "extra": dict(extra or {}), **more,
    }
    text = plain_json.dumps(document, indent=2) + "\n"  # before any write: `extra` may not be plain
    write_atomically(weights_path, weights)
    write_atomically(json_path, text.encode())
    return json_path


def load_network(path: Path) -> tuple[SegmentedNetwork, dict[str, Any]]:
    """Read what `save_network` wrote; returns the network (in eval mode) and its `extra`.

    Raises:
        ModelError: a file is missing, damaged, newer, of another pair, or its tensors do not fit;
            names the file, or the keys.
    """
    document, state = read_network_file(path)
    weights_path, json_path = _paths(path)
    try:
        spec = from_mapping(NetworkSpec, document["spec"], where=str(json_path))
        extra = dict(document.get("extra", {}))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{json_path} holds no valid network: {error}") from error
    if "quantized" in document:
        raise ModelError(f"{json_path} holds a quantised network, and a float one is needed.",
                         hint="Name the folder of the float run.")
    network = build_from_spec(spec)
    load_state(network, state, source=str(weights_path))
    return network.eval(), extra


def read_network_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON of a network and its tensors, which belong together.

    Raises:
        ModelError: a file is missing, damaged, newer, or of another pair.
    """
    weights_path, json_path = _paths(path)
    document = _read_document(json_path)
    weights = _read_bytes(weights_path)
    if hashlib.sha256(weights).hexdigest() != document.get("weights_sha256"):
        raise ModelError(
            f"{weights_path} is not the file that {json_path.name} was written with "
            "(SHA-256 differs).",
            hint="Save the network again, or restore both files from one source.",
        )
    return document, _parse_tensors(weights, weights_path)


def load_state(
    network: SegmentedNetwork, state: Mapping[str, Tensor], *, source: str = "the state"
) -> None:
    """Load a full `state` (trunk and exits) into `network`.

    Raises:
        ModelError: names missing, unknown and wrongly shaped tensors; nothing is loaded then.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own if key in state and state[key].shape != own[key].shape
    ]
    refuse_mismatch(source, network.spec, missing=missing, unknown=unknown, shapes=shapes)
    network.load_state_dict(dict(state))


def _paths(path: Path) -> tuple[Path, Path]:
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"Network file {path} cannot be read: {error.strerror}.") from error


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = plain_json.loads(_read_bytes(path))
    except ValueError as error:
        raise ModelError(f"Network file {path} is not valid JSON: {error}.") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"Network file {path} has schema_version {version!r}; allowed: {SCHEMA_VERSION}.",
            hint="Update edgepkd if the file is newer.",
        )
    return dict(document)


def _parse_tensors(weights: bytes, path: Path) -> dict[str, Tensor]:
    require("safetensors", purpose="Reading a checkpoint")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(weights))
    except SafetensorError as error:
        raise ModelError(f"Network file {path} is damaged: {error}.") from error
