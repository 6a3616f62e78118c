"""The bundle `NAME.edgepkd/`: what the device needs, in one folder that is whole or absent.

    manifest.json        schema_version, labels, inputs, cascade, segments, SHA-256 of every file
    segments/mv_1.onnx   one ONNX file per segment; tensors named x, features, logits
    wise.json            WISE weights per order; policy.json: temperatures and thresholds per order
    MODEL_CARD.md        data, split, accuracy

Everything that is read is checked: schema, shapes, hashes, and that no path leaves the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_type_hints

from edgepkd.bundle._schema import (
    SCHEMA_VERSION,
    build,
    load_json,
    numbers,
    plain,
    require,
    typed,
)
from edgepkd.bundle.folder import open_folder
from edgepkd.config import MODALITIES, NUM_EXITS, ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.errors import BundleError

SUFFIX = ".edgepkd"
MANIFEST = "manifest.json"
WISE = "wise.json"
POLICY = "policy.json"
MODEL_CARD = "MODEL_CARD.md"
FIT_SCHEMA_VERSION = SCHEMA_VERSION
"""Of wise.json and policy.json."""
MANIFEST_SCHEMA_VERSION = 2
"""2: segments say their precision. 1 is read as well: its segments are float."""

SegmentKey = tuple[Modality, int]
WiseTable = Mapping[str, tuple[tuple[float, ...], ...]]
"""Order ("mv,residual,iframe") -> one weight vector per prefix, lengths 1, 2, 3 …"""


@dataclass(frozen=True)
class PolicyEntry:
    """Temperature and threshold of every position of one order."""

    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]


PolicyTable = Mapping[str, PolicyEntry]


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class CascadeEntry:
    """The order used unless another is asked for, and the exits of each network."""

    default_order: tuple[Modality, ...]
    num_exits: int = NUM_EXITS


@dataclass(frozen=True)
class SegmentEntry:
    """One segment: input `x`, outputs `features` (not the last one) and `logits`."""

    modality: Modality
    exit: int
    """1..4 within its network."""
    file: str
    """Path within the bundle, with forward slashes."""
    input_shape: tuple[int, ...]
    """(C, H, W) of `x` for one frame; the batch axis holds the temporal segments."""
    features_shape: tuple[int, ...] | None
    """(C, H, W) of `features`, the next segment's input; None for the last segment."""
    gmac: float
    """Multiply-accumulates of this segment and its exit for one frame, in 1e9."""
    precision: Literal["fp32", "int8"] = "fp32"
    """int8: weights and activations are quantised in the file."""
    weight_bits: Literal[7, 8] | None = None
    """Of int8: 8 is the full range, which CPUs without VNNI overflow on; None: float."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says; `files` is filled in by write_bundle."""

    name: str
    labels: tuple[str, ...]
    inputs: Mapping[Modality, InputSpec]
    clip: ClipSpec
    decode: DecodeSpec
    cascade: CascadeEntry
    segments: tuple[SegmentEntry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Free: who made it, from which data, with which versions and seeds."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = MANIFEST_SCHEMA_VERSION

    def segment(self, modality: Modality, exit: int) -> SegmentEntry:
        """The segment that ends in exit `exit` (1..4) of the network of `modality`."""
        return next(s for s in self.segments if (s.modality, s.exit) == (modality, exit))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, read and checked."""

    path: Path
    manifest: Manifest
    wise: WiseTable
    policy: PolicyTable

    def segment_content(self, modality: Modality, exit: int) -> bytes:
        """ONNX of one segment, read once: these bytes have the SHA-256 of the manifest.

        Raises:
            BundleError: the file is missing, no plain file, or not what the manifest says.
        """
        return _read_listed(self.path, self.manifest.segment(modality, exit).file, self.manifest)


def segment_file(modality: Modality, exit: int) -> str:
    """Where a segment lies in a bundle: segments/mv_1.onnx."""
    return f"segments/{modality}_{exit}.onnx"


# ---- reading


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read the bundle in folder `path`; `verify` hashes every file (else only sizes are checked).

    Raises:
        BundleError: absent, damaged, tampered with, inconsistent or written by a newer edgepkd;
            names the file or the key.
    """
    root = Path(path)
    if not (root / MANIFEST).is_file():
        why = f"it has no {MANIFEST}" if root.is_dir() else "no such folder"
        raise BundleError(f"{root} is not a bundle: {why}.",
                          hint=f"A bundle is a folder NAME{SUFFIX} with {MANIFEST} in it.")
    document = load_json(root / MANIFEST, oldest=1, newest=MANIFEST_SCHEMA_VERSION)
    manifest = _parse_manifest(document, where=MANIFEST)
    for relative, entry in manifest.files.items():
        _verify_file(root, relative, entry, hashed=verify)
    wise = _parse_wise(load_json(root / WISE), where=WISE)
    policy = _parse_policy(load_json(root / POLICY), where=POLICY)
    _check_consistent(manifest, wise, policy)
    return Bundle(root, manifest, wise, policy)


def _parse_manifest(values: Mapping[str, Any], *, where: str) -> Manifest:
    keys = {name for name in get_type_hints(Manifest)}
    require(set(values) == keys, f"{where}: keys missing or unknown",
            ", ".join(sorted(set(values) ^ keys)), ", ".join(sorted(keys)))
    inputs = typed(values["inputs"], dict, where=f"{where}: inputs")
    require(set(inputs) <= set(MODALITIES) and inputs != {}, f"{where}: inputs", sorted(inputs),
            ", ".join(MODALITIES))
    segments = typed(values["segments"], list, where=f"{where}: segments")
    files = typed(values["files"], dict, where=f"{where}: files")
    return Manifest(
        name=typed(values["name"], str, where=f"{where}: name"),
        labels=plain(values["labels"], tuple[str, ...], where=f"{where}: labels"),
        inputs={name: build(InputSpec, spec, where=f"{where}: inputs.{name}")
                for name, spec in inputs.items()},
        clip=build(ClipSpec, values["clip"], where=f"{where}: clip"),
        decode=build(DecodeSpec, values["decode"], where=f"{where}: decode"),
        cascade=build(CascadeEntry, values["cascade"], where=f"{where}: cascade"),
        segments=tuple(build(SegmentEntry, item, where=f"{where}: segments[{i}]")
                       for i, item in enumerate(segments)),
        provenance=typed(values["provenance"], dict, where=f"{where}: provenance"),
        files={_inside(name): build(FileEntry, entry, where=f"{where}: files.{name}")
               for name, entry in files.items()},
    )


def _orders(values: Mapping[str, Any], keys: set[str], *, where: str) -> Iterable[tuple[str, Any]]:
    """(order, entry) of wise.json or policy.json; each entry has exactly `keys`."""
    require(set(values) == {"schema_version", "orders"}, f"{where}: keys",
            ", ".join(sorted(values)), "schema_version, orders")
    for order, entry in typed(values["orders"], dict, where=f"{where}: orders").items():
        names = order.split(",")
        require(set(names) <= set(MODALITIES) and len(set(names)) == len(names),
                f"{where}: order", order, f"each of {', '.join(MODALITIES)} at most once")
        got = set(typed(entry, dict, where=f"{where}: {order}"))
        require(got == keys, f"{where}: {order}: keys", ", ".join(sorted(got)),
                ", ".join(sorted(keys)))
        yield order, entry


def _parse_wise(values: Mapping[str, Any], *, where: str) -> WiseTable:
    table = {}
    for order, entry in _orders(values, {"weights"}, where=where):
        key = f"{where}: {order}: weights"
        table[order] = tuple(numbers(vector, where=key)
                             for vector in typed(entry["weights"], list, where=key))
        lengths, count = [len(vector) for vector in table[order]], _num_positions(order)
        require(lengths == list(range(1, count + 1)), f"{key}: lengths", lengths, f"1..{count}")
    return table


def _parse_policy(values: Mapping[str, Any], *, where: str) -> PolicyTable:
    table = {}
    for order, entry in _orders(values, {"temperatures", "thresholds"}, where=where):
        temperatures = numbers(entry["temperatures"], where=f"{where}: {order}: temperatures")
        thresholds = numbers(entry["thresholds"], where=f"{where}: {order}: thresholds")
        lengths, count = (len(temperatures), len(thresholds)), _num_positions(order)
        require(lengths == (count, count), f"{where}: {order}: lengths", lengths, count)
        require(all(value > 0 for value in temperatures), f"{where}: {order}: temperatures",
                temperatures, "above 0")
        require(all(0 <= value <= 1 for value in thresholds), f"{where}: {order}: thresholds",
                thresholds, "0..1")
        table[order] = PolicyEntry(temperatures, thresholds)
    return table


def _num_positions(order: str) -> int:
    return NUM_EXITS * len(order.split(","))


# ---- checks


def _inside(relative: str) -> str:
    """`relative` if it names a place below the bundle, in plain forward-slash form.

    Raises:
        BundleError: absolute, empty, with '..', a drive or a backslash.
    """
    path = PurePosixPath(relative)
    plain = bool(path.parts) and not path.is_absolute() and path.as_posix() == relative
    if not plain or ".." in path.parts or any(mark in relative for mark in ("\\", ":", "\0")):
        raise BundleError(f"{MANIFEST}: path {relative!r} leaves the bundle or is not plain;"
                          " allowed: a relative path such as segments/mv_1.onnx.",
                          hint="Do not use this bundle unless you know who changed it.")
    return relative


def _verify_file(root: Path, relative: str, entry: FileEntry, *, hashed: bool) -> None:
    path = root / _inside(relative)
    broken = "The bundle is damaged or was changed; copy or build it again."
    if not path.is_file():
        raise BundleError(f"{path} is missing from the bundle.", hint=broken)
    if not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{path} is a link that leaves the bundle.",
                          hint="Put a copy of the file in its place.")
    size = path.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{path} has {size} bytes; the manifest says {entry.bytes}.", hint=broken)
    if hashed and (digest := _sha256(path)) != entry.sha256:
        raise BundleError(f"{path} has SHA-256 {digest[:12]}…; the manifest says"
                          f" {entry.sha256[:12]}….", hint=broken)


def _read_listed(root: Path, relative: str, manifest: Manifest) -> bytes:
    """Content of a file that the manifest lists, compared with what that says of it."""
    broken = "The bundle is damaged or was changed; copy or build it again."
    entry, folder = manifest.files[relative], open_folder(root)
    if folder is None:
        raise BundleError(f"{root} is gone.", hint="Copy or build the bundle again.")
    with folder:
        content = folder.read(_inside(relative), max_bytes=entry.bytes)
    if content is None:
        raise BundleError(f"{root / relative} is missing from the bundle.", hint=broken)
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise BundleError(f"{root / relative} has SHA-256 {digest[:12]}…; the manifest says"
                          f" {entry.sha256[:12]}….", hint=broken)
    return content


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_consistent(manifest: Manifest, wise: WiseTable, policy: PolicyTable) -> None:
    """Every part of the bundle speaks of the same modalities, exits and files."""
    require(len(manifest.labels) >= 2 and len(set(manifest.labels)) == len(manifest.labels),
            f"{MANIFEST}: labels", manifest.labels, "two or more, each once")
    for modality, spec in manifest.inputs.items():
        require(spec.modality == modality, f"{MANIFEST}: inputs.{modality}.modality",
                spec.modality, modality)
    require(manifest.cascade.num_exits == NUM_EXITS, f"{MANIFEST}: cascade.num_exits",
            manifest.cascade.num_exits, NUM_EXITS)
    default = ",".join(manifest.cascade.default_order)
    for name, table in ((WISE, wise), (POLICY, policy)):
        require(default in table, f"{MANIFEST}: cascade.default_order", default,
                f"one that {name} has: {'; '.join(sorted(table)) or 'none'}")
        for order in table:
            require(set(order.split(",")) <= set(manifest.inputs), f"{name}: order", order,
                    f"orders of {', '.join(manifest.inputs)}")
    _check_segments(manifest)
    listed = set(manifest.files)
    needed = {s.file for s in manifest.segments} | {WISE, POLICY, MODEL_CARD}
    require(needed <= listed, f"{MANIFEST}: files without", ", ".join(sorted(needed - listed)),
            "an entry for every segment, wise.json, policy.json and MODEL_CARD.md")


def _check_segments(manifest: Manifest) -> None:
    keys = [(s.modality, s.exit) for s in manifest.segments]
    expected = {(m, k) for m in manifest.inputs for k in range(1, NUM_EXITS + 1)}
    require(len(keys) == len(expected) and set(keys) == expected, f"{MANIFEST}: segments", keys,
            f"exits 1..{NUM_EXITS} of {', '.join(manifest.inputs)}, each once")
    for modality, spec in manifest.inputs.items():
        shape: tuple[int, ...] | None = (spec.num_channels, spec.crop_px, spec.crop_px)
        for k in range(1, NUM_EXITS + 1):
            segment = manifest.segment(modality, k)
            where = f"{MANIFEST}: segment {modality}_{k}"
            require(segment.input_shape == shape, f"{where}: input_shape", segment.input_shape,
                    f"{shape}, what comes before it gives")
            shape = segment.features_shape
            require((shape is None) == (k == NUM_EXITS), f"{where}: features_shape", shape,
                    f"(C, H, W), and null for exit {NUM_EXITS}")


# ---- writing


def write_bundle(
    path: str | Path,
    *,
    manifest: Manifest,
    wise: WiseTable,
    policy: PolicyTable,
    segments: Mapping[SegmentKey, bytes],
    model_card: str,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to `path` (NAME.edgepkd) atomically and read it back with every check.

    `segments` maps (modality, exit) to the ONNX file's bytes. `manifest.files` is filled in here.

    Raises:
        BundleError: the parts contradict each other, or `path` exists and may not be replaced
            (only a bundle is ever replaced, and only with `overwrite`).
    """
    target = Path(path)
    _check_target(target, overwrite=overwrite)
    contents = _contents(manifest, wise, policy, segments, model_card)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        for relative, content in contents.items():
            (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
            (temporary / relative).write_bytes(content)
        bundle = read_bundle(temporary)
        _move_into_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(bundle, path=target)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise BundleError(f"bundle path is {str(target)!r}; allowed: NAME{SUFFIX}.")
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise BundleError(f"{target} exists already.",
                          hint="Choose another name, or allow it to be overwritten.")
    if target.is_symlink() or not (target / MANIFEST).is_file():
        raise BundleError(f"{target} exists and is not a bundle; it is not overwritten.",
                          hint="Choose another name, or move it away yourself.")


def _contents(
    manifest: Manifest, wise: WiseTable, policy: PolicyTable,
    segments: Mapping[SegmentKey, bytes], model_card: str,
) -> dict[str, bytes]:
    """Relative path -> bytes of every file, manifest.json last."""
    keys = {(s.modality, s.exit) for s in manifest.segments}
    if keys != set(segments):
        raise BundleError(f"segments given are {sorted(segments)}; allowed: those of the manifest,"
                          f" {sorted(keys)}.")
    contents = {_inside(s.file): segments[s.modality, s.exit] for s in manifest.segments}
    contents[WISE] = _json({"orders": {order: {"weights": vectors}
                                       for order, vectors in wise.items()}})
    contents[POLICY] = _json({"orders": {order: asdict(entry)
                                         for order, entry in policy.items()}})
    contents[MODEL_CARD] = model_card.encode()
    files = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content))
             for name, content in contents.items()}
    contents[MANIFEST] = _json(asdict(replace(manifest, files=files)))
    return contents


def _json(values: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **values}, indent=1, allow_nan=False,
                          ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"a bundle holds only plain JSON values: {error}.") from error
    return text.encode() + b"\n"


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename `temporary` to `target`; an old bundle there comes back if that fails."""
    if not target.exists():
        os.rename(temporary, target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
