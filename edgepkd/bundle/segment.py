"""What a segment's ONNX may hold, checked before any library sees a byte of it.

A bundle may come from a stranger, and what reads ONNX is large and written in C++. So the graph is
walked here first: only known operators with known attributes, no loops or functions, in order and
without cycles, tensors that fit together and end in what the manifest says, and no more arithmetic
or memory than a network for video needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgepkd.bundle.onnx_graph import FLOAT, MAX_ELEMENTS, Declared, Graph, Node, read_graph
from edgepkd.bundle.operators import OPERATORS, Made, Tensor
from edgepkd.bundle.schema import require

MAX_LIVE_ELEMENTS = 1 << 29
"""Of all tensors that are needed at the same time: 2 GB in FP32."""
MAX_WORK = 500_000_000_000
"""Multiply-accumulates for the frames of one clip; a value that is only moved counts as 16."""
_MOVED_WORK = 16


def check_segment(
    content: bytes, *, where: str, frames: int, input_shape: tuple[int, ...],
    features_shape: tuple[int, ...] | None, num_labels: int,
) -> None:
    """Refuse a segment that is not a harmless graph from `x` [frames, *input_shape] to `logits`
    [frames, num_labels] and, where there are any, `features` [frames, *features_shape].

    `where` is the name of the file.

    Raises:
        BundleError: names the file, the node or tensor, what is there and what is allowed.
    """
    graph = read_graph(content, where=where)
    tensors = {"x": Tensor((frames, *input_shape), FLOAT)}
    _check_border(graph.inputs, {"x": tensors["x"].shape}, where=f"{where}: inputs")
    require("x" not in graph.constants, f"{where}: x", "a constant", "the input")
    tensors |= {name: Tensor(constant.shape, constant.type, constant)
                for name, constant in graph.constants.items()}
    work = _walk(graph, tensors, where=where)
    require(work <= MAX_WORK, f"{where}: multiply-accumulates of a clip", work,
            f"up to {MAX_WORK}")
    wanted: dict[str, tuple[int, ...]] = {"logits": (frames, num_labels)}
    if features_shape is not None:
        wanted["features"] = (frames, *features_shape)
    _check_border(graph.outputs, wanted, where=f"{where}: outputs")
    made = {output for node in graph.nodes for output in node.outputs}
    for name, shape in wanted.items():
        found = tensors[name].shape if name in made else None
        require(found == shape and tensors[name].type == FLOAT, f"{where}: {name}", found,
                f"{shape} in FP32, as the manifest says")


def _check_border(
    declared: Mapping[str, Declared], wanted: Mapping[str, tuple[int, ...]], *, where: str
) -> None:
    require(set(declared) == set(wanted), where, ", ".join(sorted(declared)) or "none",
            ", ".join(sorted(wanted)))
    for name, shape in wanted.items():
        border = declared[name]
        sizes = border.shape or (None,) * len(shape)
        fits = len(sizes) == len(shape) and all(
            size in (None, expected) for size, expected in zip(sizes[1:], shape[1:], strict=True))
        require(fits, f"{where}: {name}: shape", sizes, f"(free, {shape[1:]})")
        require(border.type == FLOAT, f"{where}: {name}: type", border.type, "FP32")


def _walk(graph: Graph, tensors: dict[str, Tensor], *, where: str) -> int:
    """Find what each node makes, into `tensors`; returns the work of all."""
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    dying: dict[int, list[str]] = {}
    for name, number in last_use.items():
        dying.setdefault(number, []).append(name)
    work, live = 0, math.prod(tensors["x"].shape)
    for number, node in enumerate(graph.nodes):
        made = _made_by(node, tensors)
        size = math.prod(made.shape)
        live += size
        work += made.work + _MOVED_WORK * size
        require(size <= MAX_ELEMENTS, f"{node.where}: values of a clip", size,
                f"up to {MAX_ELEMENTS}")
        require(live <= MAX_LIVE_ELEMENTS, f"{node.where}: values needed at the same time", live,
                f"up to {MAX_LIVE_ELEMENTS}")
        (name,) = node.outputs
        require(name != "" and name not in tensors, f"{node.where}: output", name,
                "a name, each once")
        tensors[name] = Tensor(made.shape, made.type)
        live -= sum(math.prod(tensors[old].shape) for old in dying.get(number, ())
                    if old and tensors[old].constant is None)
    return work


def _made_by(node: Node, tensors: Mapping[str, Tensor]) -> Made:
    require(node.operator in OPERATORS, f"{node.where}: operator", node.operator,
            ", ".join(sorted(OPERATORS)))
    operator = OPERATORS[node.operator]
    least, most = operator.num_inputs
    require(least <= len(node.inputs) <= most, f"{node.where}: number of inputs",
            len(node.inputs), f"{least}..{most}")
    require(len(node.outputs) == 1, f"{node.where}: number of outputs", len(node.outputs), "1")
    for position, name in enumerate(node.inputs):
        optional = name == "" and position >= least
        require(optional or name in tensors, f"{node.where}: input", name,
                "one that was made before it")
    for key, value in node.attributes.items():
        require(key in operator.attributes, f"{node.where}: attribute", key,
                ", ".join(sorted(operator.attributes)) or "none")
        allowed = operator.attributes[key]
        require(allowed.fits(value), f"{node.where}: {key}", value, allowed.words)
    return operator.made(node, [tensors.get(name) for name in node.inputs])
