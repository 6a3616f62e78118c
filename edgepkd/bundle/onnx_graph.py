"""A segment's ONNX as plain values, read without any library; what no segment needs is refused:
subgraphs, functions, sparse tensors, tensors that lie in other files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.bundle.schema import FOREIGN, require
from edgepkd.bundle.wire import Kind, Message, WireError, read_message
from edgepkd.errors import BundleError

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10
"""TensorProto.DataType."""
DTYPES: Mapping[int, str] = {FLOAT: "<f4", UINT8: "u1", INT8: "i1", INT32: "<i4", INT64: "<i8",
                             FLOAT16: "<f2"}
MAX_NODES = 10_000
MAX_CONSTANTS = 20_000
MAX_RANK = 8
MAX_DIM = 1 << 24
MAX_ELEMENTS = 1 << 27
"""Of one tensor, for the frames of a clip."""

_INTEGER, _REAL, _INTEGERS, _STRING = 2, 1, 7, 3
"""AttributeProto.AttributeType."""
_DOC: tuple[str, Kind] = ("doc_string", "ignored")

_DIMENSION = Message("Dimension", {1: ("dim_value", "int"), 2: ("dim_param", "text"),
                                   3: ("denotation", "ignored")})
_SHAPE = Message("TensorShapeProto", {1: ("dim", _DIMENSION)}, frozenset({"dim"}))
_TENSOR_TYPE = Message("TypeProto.Tensor", {1: ("elem_type", "int"), 2: ("shape", _SHAPE)})
_TYPE = Message("TypeProto", {1: ("tensor_type", _TENSOR_TYPE), 6: ("denotation", "ignored")})
_VALUE = Message("ValueInfoProto", {1: ("name", "text"), 2: ("type", _TYPE), 3: _DOC,
                                    4: ("metadata_props", "ignored")})
_TENSOR = Message("TensorProto", {
    1: ("dims", "ints"), 2: ("data_type", "int"), 4: ("float_data", "floats"),
    5: ("int32_data", "ints"), 7: ("int64_data", "ints"), 8: ("name", "text"),
    9: ("raw_data", "bytes"), 12: _DOC, 13: ("external_data", "bytes"),
    14: ("data_location", "int"), 16: ("metadata_props", "ignored")})
_ATTRIBUTE = Message("AttributeProto", {
    1: ("name", "text"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "text"), 8: ("ints", "ints"),
    13: _DOC, 20: ("type", "int")})
_NODE = Message("NodeProto", {
    1: ("input", "text"), 2: ("output", "text"), 3: ("name", "text"), 4: ("op_type", "text"),
    5: ("attribute", _ATTRIBUTE), 6: _DOC, 7: ("domain", "text"), 9: ("metadata_props", "ignored"),
}, frozenset({"input", "output", "attribute"}))
_GRAPH = Message("GraphProto", {
    1: ("node", _NODE), 2: ("name", "text"), 5: ("initializer", _TENSOR), 10: _DOC,
    11: ("input", _VALUE), 12: ("output", _VALUE), 13: ("value_info", _VALUE),
    16: ("metadata_props", "ignored"),
}, frozenset({"node", "initializer", "input", "output", "value_info"}))
_OPSET = Message("OperatorSetIdProto", {1: ("domain", "text"), 2: ("version", "int")})
_MODEL = Message("ModelProto", {
    1: ("ir_version", "int"), 2: ("producer_name", "ignored"), 3: ("producer_version", "ignored"),
    4: ("domain", "ignored"), 5: ("model_version", "ignored"), 6: _DOC, 7: ("graph", _GRAPH),
    8: ("opset_import", _OPSET), 14: ("metadata_props", "ignored")}, frozenset({"opset_import"}))

Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """An initialiser: its values are `data`, as they lie in the file."""

    shape: tuple[int, ...]
    type: int
    data: NDArray[Any]
    """Flat."""


@dataclass(frozen=True)
class Node:
    """One operator of the default domain."""

    where: str
    """What to call it in a message."""
    operator: str
    inputs: tuple[str, ...]
    """'' stands for one that is left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True)
class Declared:
    """A tensor at the border of the graph; a size is None where it is free."""

    type: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Graph:
    """A segment as it is written: not yet known to fit together."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    inputs: Mapping[str, Declared]
    outputs: Mapping[str, Declared]


def read_graph(content: bytes, *, where: str) -> Graph:
    """The graph in `content`; `where` names the file.

    Raises:
        BundleError: it is no ONNX, or holds what no segment needs.
    """
    try:
        model = read_message(content, _MODEL)
    except WireError as error:
        raise BundleError(f"{where} is no ONNX file that is taken: {error}.",
                          hint=FOREIGN) from error
    opsets = [(entry.get("domain", ""), entry.get("version", 0)) for entry in model["opset_import"]]
    require(len(opsets) == 1 and opsets[0][0] in ("", "ai.onnx") and 13 <= opsets[0][1] <= 30,
            f"{where}: opset_import", opsets[:5], "one, of ONNX itself, 13..30")
    require(3 <= model.get("ir_version", 0) <= 100, f"{where}: ir_version",
            model.get("ir_version"), "3..100")
    graph = model.get("graph", {})
    require(graph != {}, f"{where}: graph", "missing", "one")
    for name, most in (("node", MAX_NODES), ("value_info", MAX_CONSTANTS),
                       ("initializer", MAX_CONSTANTS)):
        require(len(graph[name]) <= most, f"{where}: {name}s", len(graph[name]), f"up to {most}")
    for value in graph["value_info"]:
        _declared(value, where=where)
    return Graph(
        nodes=tuple(_node(node, number, where=where)
                    for number, node in enumerate(graph["node"])),
        constants=_once(((tensor.get("name", ""), _constant(tensor, where=where))
                         for tensor in graph["initializer"]), where=where),
        inputs=_once(((value.get("name", ""), _declared(value, where=where))
                      for value in graph["input"]), where=where),
        outputs=_once(((value.get("name", ""), _declared(value, where=where))
                       for value in graph["output"]), where=where))


def _once(pairs: Any, *, where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        require(name != "" and name not in made, f"{where}: a tensor's name", name,
                "a name, each once")
        made[name] = value
    return made


def _node(values: dict[str, Any], number: int, *, where: str) -> Node:
    name = values.get("name") or next(iter(values["output"]), "") or f"number {number}"
    where = f"{where}: node {name}"
    require(values.get("domain", "") in ("", "ai.onnx"), f"{where}: domain",
            values.get("domain"), "the default one")
    attributes: dict[str, Attribute] = {}
    for attribute in values["attribute"]:
        key = attribute.get("name", "")
        require(key not in attributes, f"{where}: attribute", key, "each once")
        attributes[key] = _attribute(attribute, where=f"{where}: {key}")
    return Node(where=where, operator=values.get("op_type", ""), inputs=tuple(values["input"]),
                outputs=tuple(values["output"]), attributes=attributes)


def _attribute(values: dict[str, Any], *, where: str) -> Attribute:
    kinds: Mapping[int, str] = {_INTEGER: "i", _REAL: "f", _INTEGERS: "ints", _STRING: "s"}
    kind = kinds.get(values.get("type", 0))
    given = set(values) - {"name", "type"}
    require(kind is not None and given <= {kind}, f"{where}: type", values.get("type"),
            "a number, integers or a text, and only its value")
    if kind == "ints":
        found = tuple(values.get("ints", ()))
        require(len(found) <= 2 * MAX_RANK, f"{where}: number of values", len(found),
                f"up to {2 * MAX_RANK}")
        return found
    value: Attribute = values.get(str(kind), "" if kind == "s" else 0)
    require(not isinstance(value, float) or math.isfinite(value), where, value, "a finite number")
    return value


def _declared(values: dict[str, Any], *, where: str) -> Declared:
    where = f"{where}: {values.get('name', '')}"
    tensor = values.get("type", {}).get("tensor_type")
    require(tensor is not None, f"{where}: type", "missing", "a tensor")
    if "shape" not in tensor:
        return Declared(tensor.get("elem_type", 0), None)
    dims = tensor["shape"]["dim"]
    require(len(dims) <= MAX_RANK, f"{where}: number of dimensions", len(dims), f"up to {MAX_RANK}")
    for dim in dims:
        require(set(dim) in ({"dim_value"}, {"dim_param"}, set())
                and 0 <= dim.get("dim_value", 0) <= MAX_DIM,
                f"{where}: shape", dim.get("dim_value"), f"0..{MAX_DIM}, or a name")
    return Declared(tensor.get("elem_type", 0),
                    tuple(dim.get("dim_value") or None for dim in dims))


def _constant(values: dict[str, Any], *, where: str) -> Constant:
    where = f"{where}: tensor {values.get('name', '')}"
    require("external_data" not in values and values.get("data_location", 0) == 0,
            f"{where}: data", "in another file", "in this file")
    shape, kind = tuple(values.get("dims", ())), values.get("data_type", 0)
    require(kind in DTYPES, f"{where}: data_type", kind, ", ".join(map(str, DTYPES)))
    require(len(shape) <= MAX_RANK and all(1 <= size <= MAX_DIM for size in shape)
            and math.prod(shape) <= MAX_ELEMENTS, f"{where}: dims", shape,
            f"up to {MAX_RANK} of 1..{MAX_DIM}, together up to {MAX_ELEMENTS}")
    data = _data(values, kind, where=where)
    require(len(data) == math.prod(shape), f"{where}: number of values", len(data),
            f"{math.prod(shape)}, as its dims say")
    finite = kind not in (FLOAT, FLOAT16) or bool(np.isfinite(data).all())
    require(finite, where, "not finite", "finite numbers")
    return Constant(shape, kind, data)


def _data(values: dict[str, Any], kind: int, *, where: str) -> NDArray[Any]:
    """Its values, from the one place that they are in."""
    dtype = np.dtype(DTYPES[kind])
    typed = {FLOAT: "float_data", INT64: "int64_data"}.get(kind, "int32_data")
    stored = [name for name in ("raw_data", "float_data", "int32_data", "int64_data")
              if name in values]
    require(stored in (["raw_data"], [typed]), f"{where}: data", stored or "missing",
            f"raw_data or {typed}")
    data = values[stored[0]]
    if not isinstance(data, list):
        require(len(data) % dtype.itemsize == 0, f"{where}: bytes", len(data),
                f"a multiple of {dtype.itemsize}")
        return np.frombuffer(data, dtype)
    # What has 16 bits is stored as the integer of the same bits.
    as_bits = np.dtype("<u2") if kind == FLOAT16 else dtype
    least, most = np.iinfo(as_bits).min, np.iinfo(as_bits).max
    require(all(least <= value <= most for value in data), f"{where}: values", "out of range",
            f"{least}..{most}")
    return np.array(data, as_bits).view(dtype)
