"""What the JSON files of a bundle say, and what is allowed in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from edgepkd.bundle.schema import (
    SCHEMA_VERSION,
    build,
    numbers,
    parse_json,
    plain,
    require,
    typed,
)
from edgepkd.config import (
    MAX_INPUT_VALUES,
    MODALITIES,
    NUM_EXITS,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    Modality,
    quoted,
    type_hints,
)
from edgepkd.errors import BundleError

SUFFIX = ".edgepkd"
MANIFEST = "manifest.json"
WISE = "wise.json"
POLICY = "policy.json"
MODEL_CARD = "MODEL_CARD.md"
SEGMENTS = "segments"
"""The folder of the segments' ONNX files."""
FIT_SCHEMA_VERSION = SCHEMA_VERSION
"""Of wise.json and policy.json."""
STACKS_SCHEMA_VERSION = 3
"""Of a manifest with stacked inputs, which a reader that does not know them must not misread."""
MANIFEST_SCHEMA_VERSION = 2
"""Of any other: segments say their precision. 1 is read as well: its segments are float."""

MAX_SEGMENT_BYTES = 1 << 29
MAX_FILE_BYTES = 1 << 24
"""Of what is no segment."""
MAX_FILES = 1000
MAX_BUNDLE_BYTES = 1 << 31
"""Of all files; who builds engines holds all segments at once."""
MAX_LABELS = 100_000
MAX_NAME = 200
"""Characters of a label, and of the bundle's name."""
MAX_CLIP_FRAMES = 100_000
MAX_GMAC = 1e6
MAX_WEIGHT = 1e6
MAX_TEMPERATURE = 1e6
"""The least one is its inverse."""
_MAX_PATH = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")

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
    """(C, H, W) of `x` for one pass; the batch axis holds the passes, one for each temporal
    segment, or one for all where the input is stacked."""
    features_shape: tuple[int, ...] | None
    """(C, H, W) of `features`, the next segment's input; None for the last segment."""
    gmac: float
    """Multiply-accumulates of this segment and its exit for one frame, in 1e9."""
    precision: Literal["fp32", "int8"] = "fp32"
    """int8: weights and activations are quantised in the file."""
    weight_bits: Literal[7, 8] | None = None
    """Of int8: 8 is the full range, which CPUs without VNNI overflow on; None: float."""

    @property
    def name(self) -> str:
        """Such as 'mv_1'."""
        return f"{self.modality}_{self.exit}"


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
    schema_version: int = field(init=False)
    """The lowest that says all of it."""

    def __post_init__(self) -> None:
        stacks = any(spec.stack for spec in self.inputs.values())
        object.__setattr__(self, "schema_version",
                           STACKS_SCHEMA_VERSION if stacks else MANIFEST_SCHEMA_VERSION)

    def segment(self, modality: Modality, exit: int) -> SegmentEntry:
        """The segment that ends in exit `exit` (1..4) of the network of `modality`."""
        return next(s for s in self.segments if (s.modality, s.exit) == (modality, exit))


def segment_file(modality: Modality, exit: int) -> str:
    """Where a segment lies in a bundle: segments/mv_1.onnx."""
    return f"{SEGMENTS}/{modality}_{exit}.onnx"


# ---- parsing


def parse_manifest(content: bytes) -> Manifest:
    """What manifest.json says; every file that a bundle needs is listed in it, and no other is to
    be opened.

    Raises:
        BundleError: names the key.
    """
    where = MANIFEST
    values = parse_json(content, where=where, oldest=1, newest=STACKS_SCHEMA_VERSION)
    keys = set(type_hints(Manifest))
    require(set(values) == keys, f"{where}: keys missing or unknown",
            ", ".join(sorted(set(values) ^ keys)), ", ".join(sorted(keys)))
    inputs = typed(values["inputs"], dict, where=f"{where}: inputs")
    require(set(inputs) <= set(MODALITIES) and inputs != {}, f"{where}: inputs", sorted(inputs),
            ", ".join(MODALITIES))
    segments = typed(values["segments"], list, where=f"{where}: segments")
    files = typed(values["files"], dict, where=f"{where}: files")
    most = NUM_EXITS * len(MODALITIES)
    require(len(segments) <= most, f"{where}: segments: number", len(segments), f"up to {most}")
    require(len(files) <= MAX_FILES, f"{where}: files: number", len(files), f"up to {MAX_FILES}")
    manifest = Manifest(
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
        files={inside(name): build(FileEntry, entry, where=f"{where}: files.{name}")
               for name, entry in files.items()},
    )
    _check_names(manifest)
    _check_inputs(manifest)
    require(values["schema_version"] >= STACKS_SCHEMA_VERSION
            or not any(spec.stack for spec in manifest.inputs.values()),
            f"{where}: schema_version", values["schema_version"],
            f"{STACKS_SCHEMA_VERSION}, because an input is stacked")
    _check_segments(manifest)
    _check_files(manifest)
    return manifest


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


def parse_wise(content: bytes, *, where: str = WISE) -> WiseTable:
    """What wise.json says.

    Raises:
        BundleError: names the key.
    """
    table, values = {}, parse_json(content, where=where)
    for order, entry in _orders(values, {"weights"}, where=where):
        key = f"{where}: {order}: weights"
        table[order] = tuple(
            numbers(vector, where=f"{key}[{index}]", least=-MAX_WEIGHT, most=MAX_WEIGHT)
            for index, vector in enumerate(typed(entry["weights"], list, where=key)))
        lengths, count = [len(vector) for vector in table[order]], _num_positions(order)
        require(lengths == list(range(1, count + 1)), f"{key}: lengths", lengths, f"1..{count}")
    return table


def parse_policy(content: bytes, *, where: str = POLICY) -> PolicyTable:
    """What policy.json says.

    Raises:
        BundleError: names the key.
    """
    table, values = {}, parse_json(content, where=where)
    for order, entry in _orders(values, {"temperatures", "thresholds"}, where=where):
        temperatures = numbers(entry["temperatures"], where=f"{where}: {order}: temperatures",
                               least=1 / MAX_TEMPERATURE, most=MAX_TEMPERATURE)
        thresholds = numbers(entry["thresholds"], where=f"{where}: {order}: thresholds",
                             least=0, most=1)
        lengths, count = (len(temperatures), len(thresholds)), _num_positions(order)
        require(lengths == (count, count), f"{where}: {order}: lengths", lengths, count)
        table[order] = PolicyEntry(temperatures, thresholds)
    return table


def _num_positions(order: str) -> int:
    return NUM_EXITS * len(order.split(","))


# ---- checks


def inside(relative: str) -> str:
    """`relative` if it names a place below the bundle, in plain forward-slash form.

    Raises:
        BundleError: absolute, empty, long, with '..', a drive or a backslash.
    """
    path = PurePosixPath(relative)
    plain = bool(path.parts) and not path.is_absolute() and path.as_posix() == relative
    plain = plain and len(relative.encode("utf-8", "surrogatepass")) <= _MAX_PATH
    if not plain or ".." in path.parts or any(mark in relative for mark in ("\\", ":", "\0")):
        raise BundleError(f"{MANIFEST}: path {quoted(relative)} leaves the bundle or is not"
                          f" plain; allowed: a relative path such as segments/mv_1.onnx, of up to"
                          f" {_MAX_PATH} bytes.",
                          hint="Do not use this bundle unless you know who changed it.")
    return relative


def check_tables(manifest: Manifest, wise: WiseTable, policy: PolicyTable) -> None:
    """Refuse tables that speak of other orders than the manifest.

    Raises:
        BundleError: names the table and the order.
    """
    default = ",".join(manifest.cascade.default_order)
    for name, table in ((WISE, wise), (POLICY, policy)):
        require(default in table, f"{MANIFEST}: cascade.default_order", default,
                f"one that {name} has: {'; '.join(sorted(table)) or 'none'}")
        for order in table:
            require(set(order.split(",")) <= set(manifest.inputs), f"{name}: order", order,
                    f"orders of {', '.join(manifest.inputs)}")


def _check_names(manifest: Manifest) -> None:
    require(len(manifest.name) <= MAX_NAME, f"{MANIFEST}: name", manifest.name,
            f"up to {MAX_NAME} characters")
    labels = manifest.labels
    require(2 <= len(labels) <= MAX_LABELS and len(set(labels)) == len(labels),
            f"{MANIFEST}: labels", labels, f"2..{MAX_LABELS}, each once")
    for index, label in enumerate(labels):
        require(len(label) <= MAX_NAME, f"{MANIFEST}: labels[{index}]", label,
                f"up to {MAX_NAME} characters")


def _check_inputs(manifest: Manifest) -> None:
    for modality, spec in manifest.inputs.items():
        require(spec.modality == modality, f"{MANIFEST}: inputs.{modality}.modality",
                spec.modality, modality)
    require(manifest.cascade.num_exits == NUM_EXITS, f"{MANIFEST}: cascade.num_exits",
            manifest.cascade.num_exits, NUM_EXITS)
    for key in ("clip_frames", "stride_frames"):
        frames = getattr(manifest.clip, key)
        require(frames <= MAX_CLIP_FRAMES, f"{MANIFEST}: clip.{key}", frames,
                f"1..{MAX_CLIP_FRAMES}")


def _check_files(manifest: Manifest) -> None:
    listed, segments = set(manifest.files), {s.file for s in manifest.segments}
    needed = segments | {WISE, POLICY, MODEL_CARD}
    require(needed <= listed, f"{MANIFEST}: missing from files", ", ".join(sorted(needed - listed)),
            "an entry for every segment, wise.json, policy.json and MODEL_CARD.md")
    for name, entry in manifest.files.items():
        most = MAX_SEGMENT_BYTES if name in segments else MAX_FILE_BYTES
        require(0 <= entry.bytes <= most, f"{MANIFEST}: files.{name}.bytes", entry.bytes,
                f"0..{most}")
        require(_SHA256.fullmatch(entry.sha256) is not None, f"{MANIFEST}: files.{name}.sha256",
                entry.sha256, "64 digits, 0-9 and a-f")
    total = sum(entry.bytes for entry in manifest.files.values())
    require(total <= MAX_BUNDLE_BYTES, f"{MANIFEST}: files: bytes of all", total,
            f"up to {MAX_BUNDLE_BYTES}")


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
            fits = shape is None or (
                len(shape) == 3 and min(shape) >= 1
                and math.prod(shape) * spec.num_passes <= MAX_INPUT_VALUES)
            require(fits, f"{where}: features_shape", shape, "(C, H, W), each 1 or more, together"
                    f" up to {MAX_INPUT_VALUES} for the {spec.num_passes} passes of a clip")
            require(0 <= segment.gmac <= MAX_GMAC, f"{where}: gmac", segment.gmac,
                    f"0..{MAX_GMAC:g}")
