"""The operators that a segment may hold: their inputs and attributes, and what each makes of them.

Each knows the shape and type of its output, and the arithmetic that it takes; none looks at more
values than those of a constant scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgepkd.bundle.onnx_graph import FLOAT, FLOAT16, INT8, INT32, UINT8, Attribute, Constant, Node
from edgepkd.bundle.schema import require

_MAX_STEP = 64
"""Of strides and dilations; kernels and what is padded are limited by it too."""
_FLOATS = (FLOAT, FLOAT16)
_BYTES = (INT8, UINT8)


@dataclass(frozen=True)
class Tensor:
    """What is known of a tensor; `constant` where its values are."""

    shape: tuple[int, ...]
    type: int
    constant: Constant | None = None


@dataclass(frozen=True)
class Made:
    """What a node makes, and what that costs."""

    shape: tuple[int, ...]
    type: int
    work: int = 0
    """Multiply-accumulates."""


NodeInputs = Sequence[Tensor | None]
"""What a node takes; None: an optional input that is not given."""


@dataclass(frozen=True)
class Allowed:
    """Which values an attribute may have."""

    words: str
    fits: Callable[[Attribute], bool]


@dataclass(frozen=True)
class Operator:
    """Of one operator: least and most inputs, attributes, and what it makes."""

    num_inputs: tuple[int, int]
    made: Callable[[Node, NodeInputs], Made]
    attributes: Mapping[str, Allowed]


# ---- attributes


def _integers(count: int, least: int, most: int) -> Allowed:
    return Allowed(f"{count} integers in {least}..{most}", lambda value: (
        isinstance(value, tuple) and len(value) == count
        and all(least <= number <= most for number in value)))


def _one_of(*values: int) -> Allowed:
    return Allowed(", ".join(map(str, values)),
                   lambda value: isinstance(value, int) and value in values)


def _between(least: int, most: int) -> Allowed:
    return Allowed(f"{least}..{most}",
                   lambda value: isinstance(value, int) and least <= value <= most)


_ANY_FLOAT = Allowed("a number in -1e6..1e6",
                     lambda value: isinstance(value, float) and abs(value) <= 1e6)
_WINDOW: Mapping[str, Allowed] = {
    "auto_pad": Allowed("NOTSET", lambda value: value == "NOTSET"),
    "dilations": _integers(2, 1, _MAX_STEP), "kernel_shape": _integers(2, 1, 4096),
    "pads": _integers(4, 0, 4096 * _MAX_STEP), "strides": _integers(2, 1, _MAX_STEP),
}
_SCALE: Mapping[str, Allowed] = {
    "axis": _between(-4, 3), "block_size": _one_of(0), "output_dtype": _one_of(0),
    "precision": _one_of(0), "saturate": _one_of(0, 1),
}


# ---- operators: what each makes of its inputs


def _same(node: Node, inputs: NodeInputs) -> Made:
    x = _float(node, inputs, 0)
    return Made(x.shape, x.type)


def _clip(node: Node, inputs: NodeInputs) -> Made:
    for position in range(1, len(inputs)):
        if inputs[position] is not None:
            limit = _float(node, inputs, position)
            require(limit.shape == (), f"{node.where}: limit", limit.shape, "a single number")
    return _same(node, inputs)


def _cast(node: Node, inputs: NodeInputs) -> Made:
    require("to" in node.attributes, f"{node.where}: to", "missing", "a type")
    to = node.attributes["to"]
    assert isinstance(to, int)
    return Made(_float(node, inputs, 0).shape, to)


def _broadcast(node: Node, inputs: NodeInputs) -> Made:
    a, b = _float(node, inputs, 0), _float(node, inputs, 1)
    return Made(_broadcast_shape(node, a.shape, b.shape), a.type)


def _broadcast_shape(
    node: Node, a: tuple[int, ...], b: tuple[int, ...]
) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    require(all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True)), f"{node.where}: shapes",
            (a, b), "such as fit together")
    return tuple(map(max, a, b))


def _conv(node: Node, inputs: NodeInputs) -> Made:
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
    return Made(shape, x.type, math.prod(shape) * math.prod(weight.shape[1:]))


def _pool(node: Node, inputs: NodeInputs) -> Made:
    x, kernel = _picture(node, inputs), node.attributes.get("kernel_shape")
    require(isinstance(kernel, tuple), f"{node.where}: kernel_shape", "missing", "2 integers")
    assert isinstance(kernel, tuple)
    shape = (*x.shape[:2], *_window(node, x.shape[2:], kernel))
    return Made(shape, x.type, math.prod(shape) * math.prod(kernel))


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


def _global_pool(node: Node, inputs: NodeInputs) -> Made:
    x = _picture(node, inputs)
    return Made((*x.shape[:2], 1, 1), x.type, math.prod(x.shape))


def _flatten(node: Node, inputs: NodeInputs) -> Made:
    x = _float(node, inputs, 0)
    require(len(x.shape) >= 1, f"{node.where}: shape", x.shape, "one dimension or more")
    return Made((x.shape[0], math.prod(x.shape[1:])), x.type)


def _gemm(node: Node, inputs: NodeInputs) -> Made:
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
    return Made(shape, a.type, math.prod(shape) * inner)


def _matmul(node: Node, inputs: NodeInputs) -> Made:
    a, b = _float(node, inputs, 0), _float(node, inputs, 1)
    require(min(len(a.shape), len(b.shape)) >= 2 and a.shape[-1] == b.shape[-2],
            f"{node.where}: shapes", (a.shape, b.shape), "matrices that fit together")
    around = _broadcast_shape(node, a.shape[:-2], b.shape[:-2])
    shape = (*around, a.shape[-2], b.shape[-1])
    return Made(shape, a.type, math.prod(shape) * b.shape[-2])


def _quantize(node: Node, inputs: NodeInputs) -> Made:
    x, scale = _float(node, inputs, 0), _scale(node, inputs)
    require(scale.type == x.type, f"{node.where}: type of scale", scale.type, f"{x.type}, as x")
    zero = inputs[2] if len(inputs) > 2 else None
    made = zero.type if zero else UINT8
    require(made in _BYTES, f"{node.where}: type of zero point", made, f"{INT8} or {UINT8}")
    return Made(x.shape, made)


def _dequantize(node: Node, inputs: NodeInputs) -> Made:
    scale = _scale(node, inputs)
    x = _typed(node, inputs, 0, (*_BYTES, INT32))
    if len(inputs) > 2 and inputs[2] is not None:
        _typed(node, inputs, 2, (x.type,))
    return Made(x.shape, scale.type)


def _scale(node: Node, inputs: NodeInputs) -> Tensor:
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


def _concat(node: Node, inputs: NodeInputs) -> Made:
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
    return Made(tuple(shape), parts[0].type)


def _float(node: Node, inputs: NodeInputs, position: int) -> Tensor:
    """The input at `position`, a float tensor of the type of the first one."""
    first = inputs[0]
    assert first is not None
    return _typed(node, inputs, position, _FLOATS if position == 0 else (first.type,))


def _picture(node: Node, inputs: NodeInputs) -> Tensor:
    x = _float(node, inputs, 0)
    require(len(x.shape) == 4, f"{node.where}: shape", x.shape, "four dimensions")
    return x


def _typed(node: Node, inputs: NodeInputs, position: int, allowed: tuple[int, ...]) -> Tensor:
    tensor = inputs[position]
    assert tensor is not None
    require(tensor.type in allowed, f"{node.where}: type of input {position + 1}", tensor.type,
            " or ".join(map(str, allowed)))
    return tensor


# ---- the table


_MAX_POOL = {**_WINDOW, "ceil_mode": _one_of(0, 1)}
OPERATORS: Mapping[str, Operator] = {
    "Add": Operator((2, 2), _broadcast, {}),
    "AveragePool": Operator((1, 1), _pool, {**_MAX_POOL, "count_include_pad": _one_of(0, 1)}),
    "Cast": Operator((1, 1), _cast, {"to": _one_of(*_FLOATS), "saturate": _one_of(0, 1)}),
    "Clip": Operator((1, 3), _clip, {}),
    "Concat": Operator((1, 64), _concat, {"axis": _between(-4, 3)}),
    "Conv": Operator((2, 3), _conv, {**_WINDOW, "group": _between(1, 1 << 16)}),
    "DequantizeLinear": Operator((2, 3), _dequantize, _SCALE),
    "Flatten": Operator((1, 1), _flatten, {"axis": _one_of(1)}),
    "Gemm": Operator((2, 3), _gemm, {"alpha": _ANY_FLOAT, "beta": _ANY_FLOAT,
                                     "transA": _one_of(0), "transB": _one_of(0, 1)}),
    "GlobalAveragePool": Operator((1, 1), _global_pool, {}),
    "Identity": Operator((1, 1), _same, {}),
    "MatMul": Operator((2, 2), _matmul, {}),
    "MaxPool": Operator((1, 1), _pool, {**_MAX_POOL, "storage_order": _one_of(0)}),
    "Mul": Operator((2, 2), _broadcast, {}),
    "QuantizeLinear": Operator((2, 3), _quantize, _SCALE),
    "Relu": Operator((1, 1), _same, {}),
    "Sigmoid": Operator((1, 1), _same, {}),
    "Sub": Operator((2, 2), _broadcast, {}),
}
"""All that a segment may hold, of whoever made it; all builders read them, from version 10.3 of
TensorRT on. What edgepkd itself writes holds fewer."""
