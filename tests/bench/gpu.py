"""Everything that needs a GPU, in one call: what runs there, and how fast.

    python -m tests.bench.gpu [--json docs/results/gpu.json] [--device cuda|cpu] [--quick]

Sections, each on its own so that one that cannot run says why and the rest go on:
  segments     ms per segment of ResNet-18/18/50 at 224 px: eager FP32, eager FP16, torch.compile
  training     frames per second of one training step (forward, backward, Adam), FP32 and BF16
  tensorrt_rtx do engines of the shipped bundle's segments build and load on this card; if not, the
               library's own message

`--device cpu --quick` runs the same code with no GPU at hand; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgepkd.config import MODALITIES, NUM_CHANNELS, Modality
from edgepkd.models.registry import build_network
from tests.bench.report import conditions, write_json

BACKBONES: dict[Modality, str] = {"mv": "resnet18", "residual": "resnet18", "iframe": "resnet50"}
BUNDLE = Path(__file__).resolve().parents[2] / "edgepkd" / "_bundles" / "demo.edgepkd"


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


def try_tensorrt_rtx() -> list[dict[str, Any]]:
    """One row a segment of the shipped bundle: built, loaded, or the library's message."""
    import tensorrt_rtx as trt  # type: ignore[import-not-found]

    class Log(trt.ILogger):  # type: ignore[misc]
        lines: list[str] = []  # noqa: RUF012

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.lines.append(message)

    rows = []
    for path in sorted((BUNDLE / "segments").glob("*.onnx")):
        log = Log()
        log.lines = []
        builder = trt.Builder(log)
        definition = builder.create_network(0)
        parsed = trt.OnnxParser(definition, log).parse(path.read_bytes())
        plan = builder.build_serialized_network(definition, builder.create_builder_config())
        engine = plan and trt.Runtime(log).deserialize_cuda_engine(plan)
        rows.append({"segment": path.stem, "parsed": bool(parsed), "built": plan is not None,
                     "plan_bytes": plan.nbytes if plan else None, "loads": engine is not None,
                     "messages": log.lines[:4]})
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
    document |= section("tensorrt_rtx", try_tensorrt_rtx)
    if args.json:
        write_json(args.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
