"""Records of a quantised run: quantize.json and sensitivity.json, network by network.

Each holds its head and, under `networks`, what is known of every network so far: networks may be
quantised one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepkd import plain_json
from edgepkd.config import Modality
from edgepkd.errors import DataError
from edgepkd.files import write_atomically
from edgepkd.int8 import QuantMethod
from edgepkd.pipeline.step_logs import QUANTIZE_FILE
from edgepkd.training.runs import RUN_FILE, Run, write_run

SCHEMA_VERSION = 1
SENSITIVITY_FILE = "sensitivity.json"


def start_folder(run: Run, *, method: QuantMethod, force: bool) -> None:
    """Write run.json and an empty quantize.json where there are none; `force`: run.json again.

    Raises:
        DataError: a record that is there is damaged. StorageError: nothing can be written.
    """
    for name in (QUANTIZE_FILE, SENSITIVITY_FILE):
        _networks_in(run.folder / name)  # refused now, not after training
    if force or not (run.folder / RUN_FILE).exists():
        write_run(run)
    if not (run.folder / QUANTIZE_FILE).exists():
        _write(run.folder / QUANTIZE_FILE, {"method": method, "networks": {}})


def add_to_record(
    path: Path, modality: Modality, facts: Mapping[str, Any], *, head: Mapping[str, Any]
) -> None:
    """Set what a record says of one network; what it says of others stays.

    Raises:
        DataError: the record is damaged. StorageError: it cannot be written.
    """
    _write(path, {**head, "networks": {**_networks_in(path), modality: facts}})


def _networks_in(path: Path) -> dict[str, Any]:
    try:
        return dict(plain_json.loads(path.read_bytes())["networks"]) if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.", hint="Delete it.") from error


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    document = {"schema_version": SCHEMA_VERSION, **facts}
    write_atomically(path, (plain_json.dumps(document, indent=1) + "\n").encode())
