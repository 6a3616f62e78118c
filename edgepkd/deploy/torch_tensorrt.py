"""Segments into TensorRT plans through Torch-TensorRT: the other route, for those who have it.

Torch-TensorRT takes its tensor names from the traced program: the input stays `x`, outputs are
numbered (`output0`, `output1`), and no release before 2.14 can rename them. The runner knows
that by the sidecar's `via`. Types are those of the module: what is FP16 is made so here, inputs and
outputs stay FP32.
"""

from __future__ import annotations

import copy
import re
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgepkd import _optional
from edgepkd.bundle.engines import Precision
from edgepkd.engines.graph import SMALLEST_HALF
from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.models.heads import ClassifierHead
from edgepkd.models.segmented import Segment


class _Deployable(nn.Module):
    """A segment as an engine is: FP32 in and out, computed in `dtype`; the last: logits alone."""

    def __init__(self, segment: Segment, dtype: torch.dtype) -> None:
        super().__init__()
        self.segment, self.dtype = segment.to(dtype), dtype
        self.last = isinstance(segment.head, ClassifierHead)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.segment(x.to(self.dtype))
        outputs = (logits,) if self.last else (features, logits)
        return tuple(output.float() for output in outputs)


def require_torch_tensorrt() -> ModuleType:
    """Torch-TensorRT, ready to build.

    Raises:
        MissingExtraError: it is not installed, or not made for the torch that is.
        ModelError: there is no CUDA device.
    """
    purpose = "--via torch-tensorrt"
    installed = _optional.installed_version("torch-tensorrt")
    if installed is not None and _release(installed) != _release(torch.__version__):
        raise MissingExtraError(
            f"torch-tensorrt {installed} needs torch {_release(installed)}.*, here is"
            f" {torch.__version__}.",
            hint=f"Install a pair: pip install 'torch=={_release(installed)}.*'"
                 f" 'torch-tensorrt=={_release(installed)}.*'; or export without --via.")
    if installed is not None and not torch.cuda.is_available():
        raise ModelError(f"{purpose} needs a CUDA device, and torch {torch.__version__} sees none.",
                         hint="Without --via, TensorRT-RTX engines build on any machine:"
                              " --target tensorrt-rtx")
    try:
        return _optional.require("torch_tensorrt", purpose=purpose)
    except MissingExtraError:
        raise
    except (ImportError, OSError) as error:  # OSError: a shared library of another TensorRT
        raise MissingExtraError(f"torch-tensorrt {installed} cannot be imported: {error}.",
                                hint="Run `edgepkd doctor`.") from error


def _release(version: str) -> str:
    """'2.13' of '2.13.0+cu130'."""
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else version


def build_segment(
    segment: Segment,
    *,
    example_shape: tuple[int, int, int],
    min_frames: int,
    opt_frames: int,
    max_frames: int,
    precision: Precision,
) -> bytes:
    """A plain plan of one segment for inputs [n, *example_shape], n from min to max frames.

    `segment` is on the CPU, BN folded, heads pool-first; for 'int8' ModelOpt's quantisers are in
    it. It stays as it was.

    Raises:
        MissingExtraError, ModelError: as `require_torch_tensorrt`.
        ModelError: Torch-TensorRT cannot convert it.
    """
    torch_tensorrt: Any = require_torch_tensorrt()
    module = _Deployable(_with_ranges_for_half(copy.deepcopy(segment).eval().requires_grad_(False)),
                         torch.float32 if precision == "fp32" else torch.float16).cuda()
    # torch.export takes an axis of one to be fixed, whatever it is told.
    example = torch.zeros(max(opt_frames, min(2, max_frames)), *example_shape).cuda()
    free = None if min_frames == max_frames else {
        "x": {0: torch.export.Dim("n", min=min_frames, max=max_frames)}}
    try:
        with torch.no_grad():
            module(example)  # heads make and keep their pooling matrices, which must not be traced
        with _quantizers_as_operators(precision):
            program = torch.export.export(module, (example,), dynamic_shapes=free)
            plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program, arg_inputs=[torch_tensorrt.Input(
                    min_shape=(min_frames, *example_shape), opt_shape=(opt_frames, *example_shape),
                    max_shape=(max_frames, *example_shape), dtype=torch.float32)],
                # Types are explicit; the set of precisions is gone from newer releases.
                use_explicit_typing=True)
    except Exception as error:  # of torch.export, of converters, of TensorRT: no common base
        raise ModelError(f"Torch-TensorRT cannot build the segment: {_reason(error)}",
                         hint="Export without --via: the ONNX route builds it.") from error
    return bytes(plan)


def _with_ranges_for_half(segment: Segment) -> Segment:
    """`segment`, no quantiser's scale below what FP16 holds, as in `graph.with_precision`."""
    for name, values in segment.named_buffers():
        if name.endswith("_amax"):  # the converter divides it by 127, in its own type
            values.clamp_(min=127 * SMALLEST_HALF)
    return segment


def _quantizers_as_operators(precision: Precision) -> AbstractContextManager[Any]:
    """ModelOpt's quantisers as the quantise and dequantise operators that have converters."""
    if precision != "int8":
        return nullcontext()
    _optional.require("modelopt", purpose="--via torch-tensorrt with int8")
    from modelopt.torch.quantization.utils import export_torch_mode

    context: AbstractContextManager[Any] = export_torch_mode()
    return context


def _reason(error: Exception) -> str:
    # It logs what went wrong, goes on, and misses the result.
    if isinstance(error, UnboundLocalError):
        return "it logged the reason above."
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
