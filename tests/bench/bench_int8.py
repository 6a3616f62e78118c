"""INT8 against FP32 on this CPU: milliseconds, plan sizes, and what full-range weights cost.

    python -m tests.bench.bench_int8 [--json PATH] [--rounds N] [--threads N ...] [--case NAME ...]

Chains of segments as a device runs them (OpenVINO, features handed on without a copy), one clip a
call, all forms interleaved in one process:
  mv, residual   ResNet-18 at the paper's size, 224 px
  demo           all 12 segments of networks with the shipped bundle's shapes
  fp32           float
  int8           what the recipe `int8` says: both inputs of residual adds quantised
  int8_shortcut  the same, but of residual adds the shortcut alone
Weights and frames are random (seed 0), BatchNorm and ranges are set by such frames: the numbers say
what a form costs, not what it answers. The same on ONNX Runtime where it is installed.

Then INT8 weights of 7 and 8 bits: how far the logits of the compiled segments are from those of the
quantised network in torch, relative to their norm. CPUs without VNNI add two products of bytes in
16 bits, which overflows with 8-bit weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgepkd._optional import installed_version
from edgepkd.config import NUM_EXITS, InputSpec, Modality
from edgepkd.deploy.parity import SegmentChain, Segments
from edgepkd.deploy.segments import export_segments
from edgepkd.int8 import load_int8_recipe
from edgepkd.libraries import openvino
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.quantize.network import quantize_network
from edgepkd.quantize.spec import QuantSpec
from edgepkd.runtime.model import load_bundle
from edgepkd.training.recipe import TrainRecipe, load_train_recipe, recipe_of
from tests.bench.report import conditions, write_json

CASES = ("mv", "residual", "demo")
WARM_UP = 2
AIM = 1.6
"""FP32 over INT8."""
OVERFLOW_CASES = ("mv", "residual")
VNNI_FLAGS = ("avx512_vnni", "avx_vnni")

Step = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Case:
    """Networks that answer one after the other."""

    name: str
    networks: Networks
    inputs: Mapping[Modality, InputSpec]

    def frames(self, modality: Modality, *, seed: int) -> torch.Tensor:
        """Random frames of one clip."""
        shape = self.inputs[modality].input_shape
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case_of(name: str) -> Case:
    """The case of that name, with random weights."""
    if name == "demo":
        manifest = load_bundle(None).manifest
        return _case(name, recipe_of(manifest.provenance["recipe"], where="demo bundle"),
                     manifest.cascade.default_order, len(manifest.labels))
    modality: Modality = "mv" if name == "mv" else "residual"
    paper = load_train_recipe("paper-ucf101")
    resnet = replace(paper.backbones[modality], backbone="resnet18", width=1.0)
    return _case(name, replace(paper, backbones={**paper.backbones, modality: resnet}),
                 (modality,), 101)


def _case(
    name: str, recipe: TrainRecipe, modalities: Sequence[Modality], num_classes: int
) -> Case:
    torch.manual_seed(0)
    case = Case(name, {m: build_network(
        recipe.backbones[m].backbone, modality=m, num_classes=num_classes,
        width=recipe.backbones[m].width) for m in modalities}, recipe.inputs)
    for modality, network in case.networks.items():
        _settle(network, case.frames(modality, seed=1))
    return case


def _settle(network: SegmentedNetwork, frames: torch.Tensor) -> None:
    """BatchNorm statistics as after training: those of the frames."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    with torch.no_grad():
        network.train()(frames)
    network.eval()


def quantized(case: Case, spec: QuantSpec) -> dict[Modality, SegmentedNetwork]:
    """INT8 copies whose ranges come from the frames that set BatchNorm."""
    return {m: quantize_network(network, spec=spec, calibrate=lambda copy, m=m: copy(
        case.frames(m, seed=1))) for m, network in case.networks.items()}


def forms_of(case: Case) -> dict[str, Segments]:
    """ONNX of every form."""
    spec = load_int8_recipe("int8").quantizer
    networks: dict[str, Networks] = {
        "fp32": case.networks,
        "int8": quantized(case, replace(spec, residual_add="both")),
        "int8_shortcut": quantized(case, replace(spec, residual_add="shortcut")),
    }
    return {form: export_segments(those, case.inputs) for form, those in networks.items()}


# ---- chains


@dataclass(frozen=True, eq=False)
class Way:
    """A compiled chain: one step a segment, in order."""

    steps: Mapping[str, Step]
    plan_bytes: int | None
    """Of OpenVINO's blobs."""


def openvino_way(case: Case, segments: Segments, *, threads: int) -> Way:
    """The segments on OpenVINO, as `OpenVinoRunner` compiles and chains them."""
    steps, size = {}, 0
    for modality in case.networks:
        x = openvino.module().Tensor(case.frames(modality, seed=2).numpy())
        for k in range(1, NUM_EXITS + 1):
            frames, *frame_shape = x.shape
            compiled = openvino.compile_segment(segments[modality, k], frames=frames,
                                                frame_shape=frame_shape, threads=threads)
            blob = io.BytesIO()
            compiled.export_model(blob)
            size += len(blob.getvalue())
            request = compiled.create_infer_request()
            request.set_tensor("x", x)
            steps[f"{modality}_{k}"] = request.infer
            x = request.get_tensor("features") if k < NUM_EXITS else x
    return Way(steps, size)


def onnxruntime_way(case: Case, segments: Segments, *, threads: int) -> Way:
    """The segments on ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    steps: dict[str, Step] = {}
    for modality in case.networks:
        held: list[Any] = [case.frames(modality, seed=2).numpy()]
        for k in range(1, NUM_EXITS + 1):
            session = onnxruntime.InferenceSession(segments[modality, k], options,
                                                   providers=["CPUExecutionProvider"])
            steps[f"{modality}_{k}"] = _onnxruntime_step(session, held, k)
    return Way(steps, None)


def _onnxruntime_step(session: Any, held: list[Any], k: int) -> Step:
    """Run segment `k` on what the one before it left in `held`: the frames, then features."""
    def step() -> None:
        del held[k:]
        held.append(session.run(None, {"x": held[-1]})[0])

    return step


MAKERS: Mapping[str, Callable[..., Way]] = {
    "openvino": openvino_way, "onnxruntime": onnxruntime_way}


def engines_here() -> dict[str, str]:
    """Engine -> its version, or that it is not installed."""
    return {name: (installed_version(name) or "no version") if importlib.util.find_spec(name)
            else "not installed" for name in MAKERS}


# ---- speed


def measure(case: Case, *, engines: Sequence[str], threads: Sequence[int], rounds: int
            ) -> dict[str, Any]:
    """Times of every form, engine and number of threads, interleaved call by call."""
    forms = forms_of(case)
    names = [(engine, count, form) for engine in engines for count in threads for form in forms]
    ways = {name: MAKERS[name[0]](case, forms[name[2]], threads=name[1]) for name in names}
    times: dict[tuple[str, int, str], list[list[float]]] = {name: [] for name in names}
    for number in range(WARM_UP + rounds):
        for name, way in ways.items():
            row = [_timed_ms(step) for step in way.steps.values()]
            if number >= WARM_UP:
                times[name].append(row)
    rows = [_row(engine, count, form, ways[engine, count, form],
                 times[engine, count, form], times[engine, count, "fp32"])
            for engine, count, form in names]
    return {
        "frames": {m: list(case.frames(m, seed=2).shape) for m in case.networks},
        "backbones": {m: f"{n.spec.backbone} x{n.spec.width:g}" for m, n in case.networks.items()},
        "onnx_bytes": {form: sum(map(len, segments.values())) for form, segments in forms.items()},
        "rows": rows,
    }


def _timed_ms(step: Step) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def _row(
    engine: str, threads: int, form: str, way: Way, own: list[list[float]],
    base: list[list[float]],
) -> dict[str, Any]:
    """Medians of a way; ratios are those of FP32's medians to its own."""
    segments = [statistics.median(column) for column in zip(*own, strict=True)]
    plain = [statistics.median(column) for column in zip(*base, strict=True)]
    chain = [sum(row) for row in own]
    ratio = statistics.median(sum(row) for row in base) / statistics.median(chain)
    return {
        "engine": engine, "threads": threads, "form": form,
        "chain_ms": round(statistics.median(chain), 3),
        "chain_ms_least": round(min(chain), 3), "chain_ms_most": round(max(chain), 3),
        "fp32_over_this": round(ratio, 3), "reaches_aim": form != "fp32" and ratio >= AIM,
        "plan_bytes": way.plan_bytes,
        "segments_ms": {name: round(ms, 3) for name, ms in zip(way.steps, segments, strict=True)},
        "segments_fp32_over_this": {name: round(a / b, 3) for name, a, b in zip(
            way.steps, plain, segments, strict=True)},
    }


# ---- 7 and 8 bits


def overflow_rows(case: Case) -> list[dict[str, Any]]:
    """Relative error of the compiled segments' logits, for weights of 7 and 8 bits."""
    spec = load_int8_recipe("int8").quantizer
    rows = []
    for modality, network in case.networks.items():
        x = case.frames(modality, seed=2)
        for bits in (7, 8):
            student = quantized(case, replace(spec, weight_bits=bits))
            with torch.no_grad():
                plain = [z.numpy() for z in network(x)]
                wanted = [z.numpy() for z in student[modality](x)]
            got = SegmentChain(export_segments(student, case.inputs), modality, frames=len(x))(
                x.numpy())
            rows.append({
                "network": f"{case.name}: {modality}", "weight_bits": bits,
                "compiled_against_torch_int8": [_error(a, b) for a, b in zip(
                    got, wanted, strict=True)],
                "torch_int8_against_fp32": [_error(a, b) for a, b in zip(
                    wanted, plain, strict=True)],
                "compiled_against_fp32": [_error(a, b) for a, b in zip(got, plain, strict=True)],
            })
    return rows


def _error(got: Any, wanted: Any) -> float:
    """Norm of the difference in units of the norm."""
    return round(float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)), 4)


def byte_products() -> dict[str, Any]:
    """What this CPU multiplies bytes with, as the kernel and OpenVINO tell it."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return {"vnni": [flag for flag in VNNI_FLAGS if flag in flags],
            "openvino": sorted(openvino.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))}


# ---- tables


def print_case(name: str, found: Mapping[str, Any]) -> None:
    """Chains and segments of a case."""
    for row in found["rows"]:
        segments = " ".join(f"{k} {ms:.2f}" for k, ms in row["segments_ms"].items())
        size = "" if row["plan_bytes"] is None else f", plans {row['plan_bytes'] / 1e6:.1f} MB"
        print(f"{name:9} {row['engine']:11} {row['threads']} thr {row['form']:13} "
              f"{row['chain_ms']:8.2f} ms, {row['fp32_over_this']:.2f}x{size}; {segments}")


def print_overflow(rows: Sequence[Mapping[str, Any]]) -> None:
    """Errors, one line for each network and number of bits."""
    for row in rows:
        errors = ", ".join(f"{e:.3f}" for e in row["compiled_against_torch_int8"])
        own = ", ".join(f"{e:.3f}" for e in row["torch_int8_against_fp32"])
        print(f"{row['network']:20} {row['weight_bits']} bits: compiled against torch INT8 "
              f"{errors}; torch INT8 against FP32 {own}")


def main() -> None:
    """Print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    options = parser.parse_args()
    here = engines_here()
    engines = [name for name, said in here.items() if said != "not installed"]
    document: dict[str, Any] = {"conditions": conditions(
        rounds=options.rounds, seed=0, aim=AIM, engines=here, byte_products=byte_products(),
        modelopt=installed_version("nvidia-modelopt")), "cases": {}, "weight_bits": []}
    print(json.dumps(document["conditions"]))
    for name in options.case:
        case = case_of(name)
        found = measure(case, engines=engines, threads=options.threads, rounds=options.rounds)
        document["cases"][name] = found
        print_case(name, found)
        if name in OVERFLOW_CASES:
            document["weight_bits"] += overflow_rows(case)
    print_overflow(document["weight_bits"])
    print("\n".join(f"{name}: {said}" for name, said in here.items()))
    if options.json:
        write_json(options.json, document)


if __name__ == "__main__":
    main()
