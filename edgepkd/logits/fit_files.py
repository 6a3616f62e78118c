"""Fitted WISE weights and exit policies on disk: what `wise fit` writes.

    wise.json policy.json     in a bundle's form, for the same orders
    wise-fit.json             how they were fitted, and the SHA-256 of both

The three are written together; the record's hashes show when one was changed or exchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepkd import plain_json
from edgepkd.bundle.manifest import FIT_SCHEMA_VERSION, POLICY, WISE, PolicyEntry
from edgepkd.cascade import ExitPolicy, Order, WiseWeights, order_key, parse_order
from edgepkd.errors import DataError, UsageError
from edgepkd.files import write_together

RECORD = "wise-fit.json"
Fitted = Mapping[Order, tuple[WiseWeights, ExitPolicy]]


def write_fitted(fitted: Fitted, folder: Path, *, facts: Mapping[str, Any]) -> None:
    """Write the three files to `folder`; `facts` (plain JSON values) go into the record.

    What is there already is replaced only once all three are on the disk.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    wise = _json({"orders": {order_key(order): {"weights": weights.vectors}
                             for order, (weights, _) in fitted.items()}})
    policy = _json({"orders": {
        order_key(order): asdict(PolicyEntry(entry.temperatures, entry.thresholds))
        for order, (_, entry) in fitted.items()
    }})
    files = {WISE: wise, POLICY: policy}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_together(folder, {**files, RECORD: _json({**facts, "files": hashes})})


def read_fitted(folder: Path) -> tuple[dict[Order, tuple[WiseWeights, ExitPolicy]], dict[str, Any]]:
    """Read what `write_fitted` wrote; returns the fits and the record.

    Raises:
        DataError: a file is missing, damaged, changed, or written by a newer version.
    """
    record = _parse(folder / RECORD, _read(folder / RECORD))
    tables = []
    try:
        for name in (WISE, POLICY):
            content = _read(folder / name)
            if hashlib.sha256(content).hexdigest() != record["files"][name]:
                raise DataError(f"{folder / name} is not the file that {RECORD} was written with"
                                " (SHA-256 differs).", hint="Run `edgepkd wise fit --force` again.")
            tables.append(_parse(folder / name, content)["orders"])
        wise, policy = tables
        return {order: _entry(order, wise[key], policy[key])
                for key in wise for order in (parse_order(key),)}, record
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(f"{folder} holds no valid fit: {error}.",
                        hint="Run `edgepkd wise fit --force` again.") from error


def _entry(
    order: Order, weights: Mapping[str, Any], policy: Mapping[str, Any]
) -> tuple[WiseWeights, ExitPolicy]:
    return (WiseWeights(order, tuple(tuple(vector) for vector in weights["weights"])),
            ExitPolicy(order, tuple(policy["temperatures"]), tuple(policy["thresholds"])))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.",
                        hint="Write it with `edgepkd wise fit`.") from error


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        values = plain_json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.",
                        hint="Run `edgepkd wise fit --force` again.") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != FIT_SCHEMA_VERSION:
        raise DataError(f"{path} has schema_version {version!r}; allowed:"
                        f" {FIT_SCHEMA_VERSION}.", hint="Update edgepkd if it is newer.")
    return dict(values)


def _json(values: Mapping[str, Any]) -> bytes:
    text = json.dumps({"schema_version": FIT_SCHEMA_VERSION, **values}, indent=1,
                      allow_nan=False, ensure_ascii=False)
    return text.encode() + b"\n"
