"""Parts of an ONNX file, for tests that look into one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def nodes(content: bytes, kind: str) -> list[onnx.NodeProto]:
    return [n for n in onnx.load_from_string(content).graph.node if n.op_type == kind]


def constants(content: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t)
            for t in onnx.load_from_string(content).graph.initializer}
