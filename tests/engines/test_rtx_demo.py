"""Real TensorRT-RTX engines of all 12 segments of the shipped bundle, FP32 and INT8."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgepkd.bundle.engines import EngineSet, Precision
from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.engines.build import EnginesBuilt, build_engines
from edgepkd.engines.graph import is_quantized
from edgepkd.engines.request import Request, contents_of
from edgepkd.engines.targets import load_target
from edgepkd.runtime.model import DEMO_BUNDLE

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    copy = tmp_path_factory.mktemp("demo") / DEMO_BUNDLE.name
    shutil.copytree(DEMO_BUNDLE, copy, ignore=shutil.ignore_patterns("engines"))
    return read_bundle(copy)


def build(bundle: Bundle, precision: Precision) -> EngineSet:
    """Build all, and print the build log."""
    *_, last = build_engines(Request(bundle, load_target("tensorrt-rtx"), precision=precision))
    assert isinstance(last, EnginesBuilt)
    for segment, plan in last.engines.plans.items():
        print(f"{last.engines.built_on.library} {last.engines.built_on.library_version}"
              f" {segment:<10} {plan.precision} {plan.min_frames}..{plan.max_frames} frames"
              f" {plan.bytes / 1e6:6.2f} MB {plan.build_s:5.1f} s")
        assert (Path(last.folder) / plan.file).stat().st_size == plan.bytes > 0
    return last.engines


@pytest.mark.slow
def test_all_segments_build_in_fp32_and_int8_and_int8_weights_are_8_bit(demo: Bundle) -> None:
    quantized = {s for s, content in contents_of(demo).items() if is_quantized(content)}
    assert len(quantized) == 12
    full = build(demo, "fp32")
    assert len(full.plans) == 12
    assert {plan.precision for plan in full.plans.values()} == {"fp32"}
    small = build(demo, "int8")
    assert {s for s, plan in small.plans.items() if plan.precision == "int8"} == quantized
    # Kernels are most of a small plan, and those for INT8 are larger; weights are most of these.
    large = [s for s in quantized if (demo.path / full.plans[s].source).stat().st_size > 1e6]
    assert large
    for segment in large:
        assert small.plans[segment].bytes < 0.6 * full.plans[segment].bytes
    total = [sum(plan.bytes for plan in engines.plans.values()) for engines in (full, small)]
    print(f"FP32 {total[0] / 1e6:.1f} MB, INT8 {total[1] / 1e6:.1f} MB")
    assert total[1] < 0.8 * total[0]
