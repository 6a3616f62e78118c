"""Everything that needs a GPU, in one call: what runs there, and how fast.

    python -m tests.bench.gpu [--json docs/results/gpu.json] [--device cuda|cpu] [--quick]

Sections, each on its own so that one that cannot run says why and the rest go on:
  segments     ms per segment of ResNet-18/18/50 at 224 px: eager FP32, eager FP16, torch.compile
  training     frames per second of one training step (forward, backward, Adam), FP32 and BF16
  tensorrt_rtx the same networks as TensorRT-RTX engines in FP32, FP16 and INT8, run by the device's
               own runner: ms a segment with its copies; where they do not load, the message
  onnxruntime  the same ONNX files in ONNX Runtime, where it is installed

`--device cpu --quick` runs the same code with no GPU at hand; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from edgepkd.bundle.engines import Precision
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import ExitPolicy, Order, Position, WiseWeights
from edgepkd.config import (
    MODALITIES,
    NUM_CHANNELS,
    ClipSpec,
    DecodeSpec,
    InputSpec,
    Modality,
)
from edgepkd.deploy import bundle, segments
from edgepkd.engines.build import build_engines
from edgepkd.engines.graph import with_precision
from edgepkd.engines.request import Request
from edgepkd.engines.targets import load_target
from edgepkd.errors import EdgepkdError
from edgepkd.models.registry import build_network
from edgepkd.quantize.network import quantize_network
from edgepkd.quantize.spec import QuantSpec
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.bench.report import conditions, write_json

BACKBONES: dict[Modality, str] = {"mv": "resnet18", "residual": "resnet18", "iframe": "resnet50"}


def median_ms(call: Callable[[], Any], *, device: str, repeats: int) -> float:
    """Median wall milliseconds of `call`, the device drained before and after each."""
    drain = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    for _ in range(repeats + 3):
        drain()
        start = time.perf_counter()
        call()
        drain()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times[3:]), 4)


def networks(device: str) -> dict[Modality, torch.nn.Module]:
    """The paper's three networks with random weights, pool-first, on `device`."""
    built = {}
    for modality in MODALITIES:
        network = build_network(BACKBONES[modality], modality=modality, num_classes=101)
        built[modality] = network.eval().pool_first().to(device)
    return built


def time_segments(device: str, *, repeats: int, crop_px: int, batch: int) -> list[dict[str, Any]]:
    """One row a segment: modality, exit, ms eager FP32, eager FP16, compiled FP16."""
    rows = []
    low = torch.float16 if device == "cuda" else torch.bfloat16
    for modality, network in networks(device).items():
        x = torch.randn(batch, NUM_CHANNELS[modality], crop_px, crop_px, device=device)
        for number, segment in enumerate(network.segments, start=1):
            row: dict[str, Any] = {"modality": modality, "exit": number, "batch": batch}
            with torch.inference_mode():
                row["eager_fp32_ms"] = median_ms(
                    lambda s=segment, x=x: s(x), device=device, repeats=repeats)
                half, x_half = segment.to(low), x.to(low)
                row["eager_half_ms"] = median_ms(
                    lambda s=half, x=x_half: s(x), device=device, repeats=repeats)
                if device == "cuda":  # on a CPU compiling takes minutes and says nothing
                    torch._dynamo.reset()  # each segment is a program of its own
                    compiled = torch.compile(half)
                    row["compiled_half_ms"] = median_ms(
                        lambda s=compiled, x=x_half: s(x), device=device, repeats=repeats)
                features = half(x_half)[0]
            segment.float()
            rows.append(row)
            x = x if features is None else features.float()
    return rows


def time_training(device: str, *, repeats: int, crop_px: int, batch: int) -> list[dict[str, Any]]:
    """One row a modality: frames per second of a full training step."""
    rows = []
    for modality, network in networks(device).items():
        network.train()
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        x = torch.randn(batch, NUM_CHANNELS[modality], crop_px, crop_px, device=device)
        labels = torch.randint(0, 101, (batch,), device=device)
        for precision in ("fp32", "bf16"):
            def step(enabled: bool = precision == "bf16", x: torch.Tensor = x,
                     network: torch.nn.Module = network,
                     optimiser: torch.optim.Optimizer = optimiser,
                     labels: torch.Tensor = labels) -> None:
                with torch.autocast(device, torch.bfloat16, enabled=enabled):
                    losses = [torch.nn.functional.cross_entropy(z, labels) for z in network(x)]
                optimiser.zero_grad(set_to_none=True)
                torch.stack(losses).sum().backward()
                optimiser.step()
            ms = median_ms(step, device=device, repeats=repeats)
            rows.append({"modality": modality, "precision": precision, "batch": batch,
                         "frames_per_s": round(batch / ms * 1e3, 1)})
    return rows


def paper_bundle(folder: Path, *, crop_px: int) -> Bundle:
    """The paper's three networks with random weights, in INT8, as a bundle."""
    order: Order = ("mv", "residual", "iframe")
    inputs = {m: InputSpec(m, num_segments=1, resize_px=crop_px, crop_px=crop_px) for m in order}
    quantised = {
        m: quantize_network(network, spec=QuantSpec(), calibrate=lambda q, m=m: q(
            torch.randn(2, NUM_CHANNELS[m], crop_px, crop_px)))  # type: ignore[misc]
        for m, network in networks("cpu").items()}
    return bundle.write(
        folder / "paper.edgepkd", networks=quantised, provenance={}, model_card="# random weights",
        segments=segments.export_segments(quantised, inputs),
        fitted={order: (WiseWeights.ones(order), ExitPolicy.constant(order, threshold=1.0))},
        deployment=bundle.Deployment(
            name="paper", labels=tuple(f"class {i}" for i in range(101)), inputs=inputs,
            clip=ClipSpec(), decode=DecodeSpec(), default_order=order))


def time_engines(*, repeats: int, crop_px: int) -> list[dict[str, Any]]:
    """One row a segment and precision: built by TensorRT-RTX, loaded, ms of a call and its copies;
    or the message of the library that stopped it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle, target = paper_bundle(Path(folder), crop_px=crop_px), load_target("tensorrt-rtx")
        for precision in get_args(Precision):
            built = list(build_engines(Request(bundle, target, precision=precision), force=True))
            plans = built[-1].engines.plans  # type: ignore[union-attr]
            stopped, runner = "", None
            try:
                runner = TensorRtRunner(bundle, target.name)
            except EdgepkdError as error:
                stopped = str(error)
            for modality in MODALITIES:
                x: Any = np.random.default_rng(0).normal(
                    size=(1, NUM_CHANNELS[modality], crop_px, crop_px)).astype(np.float32)
                for k in range(1, 5):
                    plan, position = plans[f"{modality}_{k}"], Position(modality, k)
                    row = {"modality": modality, "exit": k, "precision": precision,
                           "plan_bytes": plan.bytes, "build_s": plan.build_s}
                    if runner is not None and not stopped:
                        try:
                            x, row["ms"] = _timed_call(runner, position, x, repeats)
                        except EdgepkdError as error:
                            stopped = str(error)
                    rows.append({**row, **({"stopped": stopped} if stopped else {})})
    return rows


def _timed_call(
    runner: TensorRtRunner, position: Position, x: Any, repeats: int
) -> tuple[Any, float]:
    features, _ = runner.run(position, x)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        runner.run(position, x)
        times.append((time.perf_counter() - start) * 1e3)
    return features, round(statistics.median(times[3:]), 4)


def time_onnxruntime(device: str, *, repeats: int, crop_px: int) -> list[dict[str, Any]]:
    """One row a segment: ms by ONNX Runtime, FP32 and INT8, of the same ONNX files."""
    import onnxruntime as ort  # type: ignore[import-not-found]

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = paper_bundle(Path(folder), crop_px=crop_px)
        for entry in bundle.manifest.segments:
            content = (bundle.path / entry.file).read_bytes()
            row: dict[str, Any] = {"segment": f"{entry.modality}_{entry.exit}", "by": provider}
            x = np.zeros((1, *entry.input_shape), np.float32)
            for name, form in (("fp32", with_precision(content, "fp32")), ("int8", content)):
                session = ort.InferenceSession(form, providers=[provider])
                row[f"{name}_ms"] = median_ms(lambda s=session, x=x: s.run(None, {"x": x}),
                                              device=device, repeats=repeats)
            rows.append(row)
    return rows


def section(name: str, run: Callable[[], Any]) -> dict[str, Any]:
    """Result of one section, or the reason it has none."""
    start = time.perf_counter()
    try:
        result: Any = {"rows": run()}
    except Exception as error:
        result = {"not_run": f"{type(error).__name__}: {error}"[:2000]}
    result["wall_s"] = round(time.perf_counter() - start, 1)
    print(f"== {name} ({result['wall_s']} s)", flush=True)
    for row in result.get("rows", [result]):
        print("  ", row, flush=True)
    return {name: result}


def main() -> int:
    """Run every section and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device here. Try --device cpu --quick to exercise the code.",
              file=sys.stderr)
        return 1
    sizes = {"repeats": 1, "crop_px": 64} if args.quick else {"repeats": 50, "crop_px": 224}
    gpu = torch.cuda.get_device_properties(0) if args.device == "cuda" else None
    document: dict[str, Any] = {"conditions": conditions(
        gpu=gpu and gpu.name, compute_capability=gpu and f"{gpu.major}.{gpu.minor}",
        cuda=torch.version.cuda, **sizes)}
    train_batch = 4 if args.quick else 256
    document |= section("segments", lambda: time_segments(args.device, batch=1, **sizes))
    document |= section("training", lambda: time_training(args.device, batch=train_batch, **sizes))
    document |= section("tensorrt_rtx", lambda: time_engines(**sizes))
    document |= section("onnxruntime", lambda: time_onnxruntime(args.device, **sizes))
    if args.json:
        write_json(args.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
