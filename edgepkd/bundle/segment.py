"""What a segment's ONNX may hold, checked before any library sees a byte of it.

A bundle may come from a stranger, and what reads ONNX is large and written in C++. So the graph is
walked here first: only known operators with known attributes, no loops or functions, in order and
without cycles, tensors that fit together and end in what the manifest says, and no more arithmetic
or memory than a network for video needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgepkd.bundle._onnx import (
    FLOAT,
    FLOAT16,
    INT8,
    INT32,
    MAX_ELEMENTS,
    UINT8,
    Attribute,
    Constant,
    Declared,
    Graph,
    Node,
    read_graph,
)
from edgepkd.bundle._schema import require

MAX_LIVE_ELEMENTS = 1 << 29
"""Of all tensors that are needed at the same time: 2 GB in FP32."""
MAX_WORK = 500_000_000_000
"""Multiply-accumulates for the frames of one clip; a value that is only moved counts as 16."""
_MOVED = 16
_MAX_STEP = 64
"""Of strides and dilations; kernels and what is padded are limited by it too."""
_FLOATS = (FLOAT, FLOAT16)
_BYTES = (INT8, UINT8)


@dataclass(frozen=True)
class _Tensor:
    """What is known of a tensor; `constant` where its values are."""

    shape: tuple[int, ...]
    type: int
    constant: Constant | None = None


@dataclass(frozen=True)
class _Made:
    """What a node makes, and what that costs."""

    shape: tuple[int, ...]
    type: int
    work: int = 0
    """Multiply-accumulates."""


_Inputs = Sequence[_Tensor | None]


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
    tensors = {"x": _Tensor((frames, *input_shape), FLOAT)}
    _check_border(graph.inputs, {"x": tensors["x"].shape}, where=f"{where}: inputs")
    require("x" not in graph.constants, f"{where}: x", "a constant", "the input")
    tensors |= {name: _Tensor(constant.shape, constant.type, constant)
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


def _walk(graph: Graph, tensors: dict[str, _Tensor], *, where: str) -> int:
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
        work += made.work + _MOVED * size
        require(size <= MAX_ELEMENTS, f"{node.where}: values of a clip", size,
                f"up to {MAX_ELEMENTS}")
        require(live <= MAX_LIVE_ELEMENTS, f"{node.where}: values needed at the same time", live,
                f"up to {MAX_LIVE_ELEMENTS}")
        (name,) = node.outputs
        require(name != "" and name not in tensors, f"{node.where}: output", name,
                "a name, each once")
        tensors[name] = _Tensor(made.shape, made.type)
        live -= sum(math.prod(tensors[old].shape) for old in dying.get(number, ())
                    if old and tensors[old].constant is None)
    return work


def _made_by(node: Node, tensors: Mapping[str, _Tensor]) -> _Made:
    require(node.operator in _OPERATORS, f"{node.where}: operator", node.operator,
            ", ".join(sorted(_OPERATORS)))
    operator = _OPERATORS[node.operator]
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


# ---- attributes


@dataclass(frozen=True)
class _Allowed:
    """Which values an attribute may have."""

    words: str
    fits: Callable[[Attribute], bool]


def _integers(count: int, least: int, most: int) -> _Allowed:
    return _Allowed(f"{count} integers in {least}..{most}", lambda value: (
        isinstance(value, tuple) and len(value) == count
        and all(least <= number <= most for number in value)))


def _integer(*values: int) -> _Allowed:
    return _Allowed(", ".join(map(str, values)),
                    lambda value: isinstance(value, int) and value in values)


def _one_of(least: int, most: int) -> _Allowed:
    return _Allowed(f"{least}..{most}",
                    lambda value: isinstance(value, int) and least <= value <= most)


_ANY_FLOAT = _Allowed("a number in -1e6..1e6",
                      lambda value: isinstance(value, float) and abs(value) <= 1e6)
_WINDOW: Mapping[str, _Allowed] = {
    "auto_pad": _Allowed("NOTSET", lambda value: value == "NOTSET"),
    "dilations": _integers(2, 1, _MAX_STEP), "kernel_shape": _integers(2, 1, 4096),
    "pads": _integers(4, 0, 4096 * _MAX_STEP), "strides": _integers(2, 1, _MAX_STEP),
}
_SCALE: Mapping[str, _Allowed] = {
    "axis": _one_of(-4, 3), "block_size": _integer(0), "output_dtype": _integer(0),
    "precision": _integer(0), "saturate": _integer(0, 1),
}


# ---- operators: what each makes of its inputs


def _same(node: Node, inputs: _Inputs) -> _Made:
    x = _float(node, inputs, 0)
    return _Made(x.shape, x.type)


def _clip(node: Node, inputs: _Inputs) -> _Made:
    for position in range(1, len(inputs)):
        if inputs[position] is not None:
            limit = _float(node, inputs, position)
            require(limit.shape == (), f"{node.where}: limit", limit.shape, "a single number")
    return _same(node, inputs)


def _cast(node: Node, inputs: _Inputs) -> _Made:
    require("to" in node.attributes, f"{node.where}: to", "missing", "a type")
    to = node.attributes["to"]
    assert isinstance(to, int)
    return _Made(_float(node, inputs, 0).shape, to)


def _broadcast(node: Node, inputs: _Inputs) -> _Made:
    a, b = _float(node, inputs, 0), _float(node, inputs, 1)
    return _Made(_broadcast_shape(node, a.shape, b.shape), a.type)


def _broadcast_shape(
    node: Node, a: tuple[int, ...], b: tuple[int, ...]
) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    require(all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True)), f"{node.where}: shapes",
            (a, b), "such as fit together")
    return tuple(map(max, a, b))


def _conv(node: Node, inputs: _Inputs) -> _Made:
    x, weight = _picture(node, inputs), _float(node, inputs, 1)
    group = node.attributes.get("group", 1)
    assert isinstance(group, int)
    fits = (len(weight.shape) == 4 and weight.shape[0] % group == 0
            and weight.shape[1] * group == x.shape[1])
    require(fits, f"{node.where}: shape of weights", weight.shape,
            f"(a multiple of group {group}, {x.shape[1]} / {group}, height, width)")
    kernel = weight.shape[2:]
    require(node.attributes.get("kernel_shape", kernel) == kernel, f"{node.where}: kernel_shape",
            node.attributes.get("kernel_shape"), f"{kernel}, as its weights have")
    if len(inputs) > 2 and inputs[2] is not None:
        bias = _float(node, inputs, 2)
        require(bias.shape == weight.shape[:1], f"{node.where}: shape of bias", bias.shape,
                weight.shape[:1])
    shape = (x.shape[0], weight.shape[0], *_window(node, x.shape[2:], kernel))
    return _Made(shape, x.type, math.prod(shape) * math.prod(weight.shape[1:]))


def _pool(node: Node, inputs: _Inputs) -> _Made:
    x, kernel = _picture(node, inputs), node.attributes.get("kernel_shape")
    require(isinstance(kernel, tuple), f"{node.where}: kernel_shape", "missing", "2 integers")
    assert isinstance(kernel, tuple)
    shape = (*x.shape[:2], *_window(node, x.shape[2:], kernel))
    return _Made(shape, x.type, math.prod(shape) * math.prod(kernel))


def _window(
    node: Node, picture: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[int, int]:
    """Height and width that a window which slides over `picture` makes."""
    pads, strides = _pair(node, "pads", (0, 0, 0, 0)), _pair(node, "strides", (1, 1))
    dilations = _pair(node, "dilations", (1, 1))
    made = []
    for axis in (0, 1):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        begin, end = pads[axis], pads[axis + 2]
        require(max(begin, end) < reach, f"{node.where}: pads", pads,
                f"less than the window of {reach}")
        padded = picture[axis] + begin + end
        require(reach <= padded, f"{node.where}: window", reach,
                f"up to {padded}, the picture with what is padded")
        steps = padded - reach
        ceil = node.attributes.get("ceil_mode", 0)
        made.append((-(-steps // strides[axis]) if ceil else steps // strides[axis]) + 1)
    return made[0], made[1]


def _pair(node: Node, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = node.attributes.get(key, default)
    assert isinstance(value, tuple)
    return value


def _global_pool(node: Node, inputs: _Inputs) -> _Made:
    x = _picture(node, inputs)
    return _Made((*x.shape[:2], 1, 1), x.type, math.prod(x.shape))


def _flatten(node: Node, inputs: _Inputs) -> _Made:
    x = _float(node, inputs, 0)
    require(len(x.shape) >= 1, f"{node.where}: shape", x.shape, "one dimension or more")
    return _Made((x.shape[0], math.prod(x.shape[1:])), x.type)


def _gemm(node: Node, inputs: _Inputs) -> _Made:
    a, b = _float(node, inputs, 0), _float(node, inputs, 1)
    require(len(a.shape) == len(b.shape) == 2, f"{node.where}: shapes", (a.shape, b.shape),
            "two dimensions each")
    inner, columns = b.shape[::-1] if node.attributes.get("transB") else b.shape
    require(inner == a.shape[1], f"{node.where}: shapes", (a.shape, b.shape),
            "such as fit together")
    shape = (a.shape[0], columns)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = _float(node, inputs, 2)
        require(_broadcast_shape(node, shape, bias.shape) == shape, f"{node.where}: shape of bias",
                bias.shape, f"such as fits {shape}")
    return _Made(shape, a.type, math.prod(shape) * inner)


def _matmul(node: Node, inputs: _Inputs) -> _Made:
    a, b = _float(node, inputs, 0), _float(node, inputs, 1)
    require(min(len(a.shape), len(b.shape)) >= 2 and a.shape[-1] == b.shape[-2],
            f"{node.where}: shapes", (a.shape, b.shape), "matrices that fit together")
    around = _broadcast_shape(node, a.shape[:-2], b.shape[:-2])
    shape = (*around, a.shape[-2], b.shape[-1])
    return _Made(shape, a.type, math.prod(shape) * b.shape[-2])


def _quantize(node: Node, inputs: _Inputs) -> _Made:
    x, scale = _float(node, inputs, 0), _scale(node, inputs)
    require(scale.type == x.type, f"{node.where}: type of scale", scale.type, f"{x.type}, as x")
    zero = inputs[2] if len(inputs) > 2 else None
    made = zero.type if zero else UINT8
    require(made in _BYTES, f"{node.where}: type of zero point", made, f"{INT8} or {UINT8}")
    return _Made(x.shape, made)


def _dequantize(node: Node, inputs: _Inputs) -> _Made:
    scale = _scale(node, inputs)
    x = _typed(node, inputs, 0, (*_BYTES, INT32))
    if len(inputs) > 2 and inputs[2] is not None:
        _typed(node, inputs, 2, (x.type,))
    return _Made(x.shape, scale.type)


def _scale(node: Node, inputs: _Inputs) -> _Tensor:
    """The scale of a quantiser: one number above 0, or one a channel."""
    scale, x = _typed(node, inputs, 1, _FLOATS), inputs[0]
    assert x is not None
    require(scale.constant is not None and bool((scale.constant.data > 0).all()),
            f"{node.where}: scale", "computed, or not above 0", "constants above 0")
    axis = node.attributes.get("axis", 1)
    assert isinstance(axis, int)
    one, rank = scale.shape == (), len(x.shape)
    require(one or (-rank <= axis < rank and scale.shape == (x.shape[axis],)),
            f"{node.where}: shape of scale", scale.shape, f"one number, or one along axis {axis}"
            f" of {x.shape}")
    if len(inputs) > 2 and inputs[2] is not None:
        zero = _typed(node, inputs, 2, (*_BYTES, INT32))
        require(zero.shape == scale.shape and zero.constant is not None,
                f"{node.where}: shape of zero point", zero.shape, f"{scale.shape}, constant")
    return scale


def _concat(node: Node, inputs: _Inputs) -> _Made:
    parts = [_float(node, inputs, position) for position in range(len(inputs))]
    axis, rank = node.attributes.get("axis"), len(parts[0].shape)
    require(isinstance(axis, int) and -rank <= axis < rank, f"{node.where}: axis", axis,
            f"{-rank}..{rank - 1}")
    assert isinstance(axis, int)
    axis %= rank
    around = {(*part.shape[:axis], *part.shape[axis + 1:]) for part in parts}
    require(len(around) == 1 and len({len(part.shape) for part in parts}) == 1,
            f"{node.where}: shapes", [part.shape for part in parts], "equal but along the axis")
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return _Made(tuple(shape), parts[0].type)


def _float(node: Node, inputs: _Inputs, position: int) -> _Tensor:
    """The input at `position`, a float tensor of the type of the first one."""
    first = inputs[0]
    assert first is not None
    return _typed(node, inputs, position, _FLOATS if position == 0 else (first.type,))


def _picture(node: Node, inputs: _Inputs) -> _Tensor:
    x = _float(node, inputs, 0)
    require(len(x.shape) == 4, f"{node.where}: shape", x.shape, "four dimensions")
    return x


def _typed(node: Node, inputs: _Inputs, position: int, allowed: tuple[int, ...]) -> _Tensor:
    tensor = inputs[position]
    assert tensor is not None
    require(tensor.type in allowed, f"{node.where}: type of input {position + 1}", tensor.type,
            " or ".join(map(str, allowed)))
    return tensor


@dataclass(frozen=True)
class _Operator:
    """Of one operator: least and most inputs, attributes, and what it makes."""

    num_inputs: tuple[int, int]
    made: Callable[[Node, _Inputs], _Made]
    attributes: Mapping[str, _Allowed]


_MAX_POOL = {**_WINDOW, "ceil_mode": _integer(0, 1)}
_OPERATORS: Mapping[str, _Operator] = {
    "Add": _Operator((2, 2), _broadcast, {}),
    "AveragePool": _Operator((1, 1), _pool, {**_MAX_POOL, "count_include_pad": _integer(0, 1)}),
    "Cast": _Operator((1, 1), _cast, {"to": _integer(*_FLOATS), "saturate": _integer(0, 1)}),
    "Clip": _Operator((1, 3), _clip, {}),
    "Concat": _Operator((1, 64), _concat, {"axis": _one_of(-4, 3)}),
    "Conv": _Operator((2, 3), _conv, {**_WINDOW, "group": _one_of(1, 1 << 16)}),
    "DequantizeLinear": _Operator((2, 3), _dequantize, _SCALE),
    "Flatten": _Operator((1, 1), _flatten, {"axis": _integer(1)}),
    "Gemm": _Operator((2, 3), _gemm, {"alpha": _ANY_FLOAT, "beta": _ANY_FLOAT,
                                      "transA": _integer(0), "transB": _integer(0, 1)}),
    "GlobalAveragePool": _Operator((1, 1), _global_pool, {}),
    "Identity": _Operator((1, 1), _same, {}),
    "MatMul": _Operator((2, 2), _matmul, {}),
    "MaxPool": _Operator((1, 1), _pool, {**_MAX_POOL, "storage_order": _integer(0)}),
    "Mul": _Operator((2, 2), _broadcast, {}),
    "QuantizeLinear": _Operator((2, 3), _quantize, _SCALE),
    "Relu": _Operator((1, 1), _same, {}),
    "Sigmoid": _Operator((1, 1), _same, {}),
    "Sub": _Operator((2, 2), _broadcast, {}),
}
OPERATORS = frozenset(_OPERATORS)
"""All that a segment may hold, of whoever made it; all builders read them, from version 10.3 of
TensorRT on. What edgepkd itself writes holds fewer."""
