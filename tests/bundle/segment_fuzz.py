"""Changed segments of the shipped bundle, as a stranger might send them: hashes fit, graphs do not.

    python -m tests.bundle.segment_fuzz FIRST COUNT [FOLDER]

Each is run by itself in this process, which must neither die, hang nor grow: `tests` start it as a
child. Prints how many were refused by the bundle, refused by OpenVINO, and answered; with FOLDER
it keeps each input there while it runs, so that the one that killed it is left.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from edgepkd.bundle.manifest import FileEntry, SegmentEntry
from edgepkd.bundle.operators import OPERATORS
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, EdgepkdError, ModelError
from edgepkd.runtime.model import DEMO_BUNDLE
from edgepkd.runtime.openvino_runner import OpenVinoRunner

NUMBERS = (0, 1, -1, 2, 3, 5, 7, 64, 255, 256, 65536, 10**9, 2**31 - 1, 2**31, 2**60, -(2**63),
           2**63 - 1)
SMALL = (0, 1, 2, 3, 4, 5, 7, 8, 16)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """`content` with one to four changes to its bytes or its graph."""
    if chance.random() < 0.25:
        return _bytes_changed(content, chance)
    model = onnx.load_from_string(content)
    for _ in range(chance.randint(1, 4)):
        chance.choice(CHANGES)(model, chance)
    return bytes(model.SerializeToString())


def _bytes_changed(content: bytes, chance: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        # What is no weight lies at both ends: half of the changes go there.
        end = min(len(made), chance.choice((2000, len(made))))
        at = chance.randrange(end)
        at = at if chance.random() < 0.5 else len(made) - 1 - at
        kind = chance.randrange(4)
        if kind == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at] = chance.randrange(256)
        elif kind == 2:
            del made[at : at + chance.randint(1, 9)]
        else:
            made[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(made)


def _attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    attribute = chance.choice(chance.choice(nodes).attribute)
    values = chance.choice((NUMBERS, SMALL))
    if attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(values)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = chance.choice(values)
    else:
        attribute.f = chance.choice((0.0, -1.0, 1e5, 1e30, float("nan")))


def _dims(model: onnx.ModelProto, chance: random.Random) -> None:
    tensor = chance.choice(model.graph.initializer)
    if tensor.dims and chance.random() < 0.5:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(NUMBERS)
        return
    shape = list(tensor.dims)
    chance.shuffle(shape)
    if len(shape) > 1 and chance.random() < 0.5:
        shape = [shape[0] * shape[1], *shape[2:]]
    del tensor.dims[:]
    tensor.dims.extend(shape)


def _weights(model: onnx.ModelProto, chance: random.Random) -> None:
    tensor = chance.choice(model.graph.initializer)
    data = bytearray(tensor.raw_data)
    for _ in range(chance.randint(1, 20)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    tensor.raw_data = bytes(data)


def _wiring(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    side = node.input if chance.random() < 0.8 else node.output
    side[chance.randrange(len(side))] = chance.choice(names)


def _operator(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    node.op_type = chance.choice([*sorted(OPERATORS), "Loop", "Resize", "Expand", "Tile"])
    if chance.random() < 0.5:
        del node.attribute[:]
    while chance.random() < 0.3 and len(node.input) > 1:
        node.input.pop()


def _nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    nodes = model.graph.node
    at = chance.randrange(len(nodes))
    kind = chance.randrange(3)
    if kind == 0:
        del nodes[at]
    elif kind == 1:
        moved = onnx.NodeProto.FromString(nodes[at].SerializeToString())
        del nodes[at]
        nodes.insert(chance.randrange(len(nodes)), moved)
    else:
        names = [name for node in nodes[:at] for name in node.output] or ["x"]
        extra = onnx.helper.make_node(
            chance.choice(("Relu", "Add", "Mul", "Concat", "Flatten", "Sigmoid", "MatMul",
                           "GlobalAveragePool", "MaxPool", "AveragePool", "Identity")),
            [chance.choice(names) for _ in range(chance.randint(1, 2))], [f"extra{at}"])
        if extra.op_type in ("MaxPool", "AveragePool"):
            extra.attribute.extend([
                onnx.helper.make_attribute("kernel_shape", [chance.choice(SMALL)] * 2),
                onnx.helper.make_attribute("strides", [chance.choice(SMALL)] * 2)])
        elif extra.op_type == "Concat":
            extra.attribute.append(onnx.helper.make_attribute("axis", chance.choice(SMALL)))
        nodes.insert(at, extra)
        if at + 1 < len(nodes) and nodes[at + 1].input:
            nodes[at + 1].input[0] = f"extra{at}"


def _borders(model: onnx.ModelProto, chance: random.Random) -> None:
    value = chance.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if dims and chance.random() < 0.7:
        chance.choice(dims).dim_value = chance.choice(NUMBERS) & (2**63 - 1)
    else:
        value.type.tensor_type.elem_type = chance.randrange(20)


CHANGES = (_attribute, _attribute, _dims, _weights, _wiring, _operator, _nodes, _nodes, _borders)


def outcome(bundle: Bundle, entry: SegmentEntry, content: bytes) -> str:
    """What becomes of the bundle with `content` as this segment."""
    (bundle.path / entry.file).write_bytes(content)
    file = FileEntry(sha256(content).hexdigest(), len(content))
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, entry.file: file})
    position = Position(entry.modality, entry.exit)
    frames = manifest.inputs[entry.modality].num_passes
    runner = OpenVinoRunner(replace(bundle, manifest=manifest), threads=1)
    try:
        _, logits = runner.run(position, np.ones((frames, *entry.input_shape), np.float32))
    except BundleError:
        return "refused by the bundle"
    except ModelError:
        return "refused by OpenVINO"
    except EdgepkdError:
        return "refused otherwise"
    finally:
        runner.close()
    assert logits.shape == (frames, len(manifest.labels))
    return "answered"


def main(first: int, count: int, kept: Path | None) -> None:
    """Run the inputs `first` to `first` + `count`."""
    bundle = read_bundle(DEMO_BUNDLE)
    originals = {entry: bundle.segment_content(entry.modality, entry.exit)
                 for entry in bundle.manifest.segments}
    entries, outcomes, slowest = list(originals), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "segments").mkdir()
        bundle = replace(bundle, path=Path(name))
        for seed in range(first, first + count):
            chance = random.Random(seed)
            entry = chance.choice(entries)
            try:
                content = mutated(originals[entry], chance)
            except (ValueError, DecodeError, IndexError):
                continue
            if kept is not None:
                (kept / f"{first}.onnx").write_bytes(content)
            started = time.process_time()
            outcomes[outcome(bundle, entry, content)] += 1
            slowest = max(slowest, time.process_time() - started)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{dict(outcomes)}, slowest {slowest:.1f} s, {memory_mb} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
