"""The TensorRT builder: TensorRT-RTX for real, 10.3 and 11 over a module that is like them."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from edgepkd.engines import tensorrt as module
from edgepkd.engines.builder import Settings, Shapes
from edgepkd.engines.tensorrt import TensorRtBuilder, open_tensorrt, open_tensorrt_rtx
from edgepkd.errors import ConfigError, ModelError
from edgepkd.machine import hardware
from tests.engines.fake_tensorrt import FakeTensorRt
from tests.engines.segments import WIDTH, broken, convolution

SHAPES = Shapes(frame=(2, 32, 32), min_frames=1, opt_frames=3, max_frames=8)
INNER = Shapes(frame=(WIDTH, 16, 16), min_frames=1, opt_frames=3, max_frames=8)


def build(builder: TensorRtBuilder, content: bytes, **changes: Any) -> Any:
    values: dict[str, Any] = {"precision": "fp32", "shapes": SHAPES, "settings": Settings()}
    return builder.build(content, **{**values, **changes})


# ---- TensorRT-RTX, for real


@pytest.fixture(scope="module")
def rtx() -> TensorRtBuilder:
    return open_tensorrt_rtx()


@pytest.mark.slow
def test_int8_plans_are_smaller_than_fp16_and_fp32(rtx: TensorRtBuilder) -> None:
    content = convolution(2, quantized=True)
    sizes = {precision: len(build(rtx, content, precision=precision, shapes=INNER).content)
             for precision in ("fp32", "fp16", "int8")}
    weights = WIDTH * WIDTH * 9
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
    assert sizes["fp32"] - sizes["int8"] > 2.5 * weights


def test_rtx_keeps_no_timing_cache_and_is_not_measured_without_a_gpu(
    rtx: TensorRtBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build(rtx, convolution(1, quantized=False))
    assert plan.timing_cache is None
    assert plan.notes == ()
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    assert rtx.measure(plan.content, shapes=SHAPES) == "no NVIDIA GPU here"


def test_a_broken_graph_fails_with_the_parsers_words_and_the_node(rtx: TensorRtBuilder) -> None:
    content = broken(convolution(1, quantized=False), node="stem_conv", op_type="Frobnicate")
    model = onnx.load_from_string(content)
    with pytest.raises(ModelError, match=r"stem_conv \(Frobnicate\).*Plugin not found"):
        rtx._parse(model.SerializeToString(), strong=True)


def test_a_graph_that_contradicts_itself_names_the_node(rtx: TensorRtBuilder) -> None:
    content = broken(convolution(1, quantized=False), node="stem_conv", dilations=[1, 1, 1])
    with pytest.raises(ModelError, match=r"contradicts itself: .*stem_conv"):
        build(rtx, content)


def test_too_little_workspace_fails_with_the_builders_words(rtx: TensorRtBuilder) -> None:
    content = convolution(2, quantized=True)
    with pytest.raises(ModelError, match=r"cannot build it: .*workspace") as caught:
        build(rtx, content, precision="fp16", shapes=INNER, settings=Settings(workspace_mb=0))
    assert "--workspace-mb" in str(caught.value)


@pytest.mark.parametrize(("settings", "message"), [
    (Settings(version_compatible=True), "neither with TensorRT-RTX"),
    (Settings(hardware_compatible=True), "neither with TensorRT-RTX"),
    (Settings(require_timing_cache=True), "TensorRT-RTX has not"),
    (Settings(compute_capabilities=("9.9",)), "SM99; allowed: .*SM86"),
    (Settings(dla=0), "dla is 0; allowed: cores below 0"),
])
def test_rtx_refuses_what_it_cannot_do(
    rtx: TensorRtBuilder, settings: Settings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(rtx, convolution(1, quantized=False), settings=settings)


def test_rtx_builds_ahead_of_time_for_single_gpus(rtx: TensorRtBuilder) -> None:
    settings = Settings(compute_capabilities=("8.6", "8.9"))
    assert build(rtx, convolution(1, quantized=False), settings=settings).content


# ---- TensorRT 10.3 and 11


@pytest.mark.parametrize(("version", "flags"), [("10.3.0", 2), ("11.4.1", 0)])
def test_networks_are_strongly_typed_in_every_version(version: str, flags: int) -> None:
    trt = FakeTensorRt(version)
    plan = build(TensorRtBuilder(trt), convolution(1, quantized=True), precision="int8",
                 settings=Settings(workspace_mb=64, optimization_level=4))
    (config,) = trt.configs
    assert trt.network_flags == [flags]
    assert plan.content == b"plan"
    assert config.pools == {"workspace": 64 << 20}
    assert config.builder_optimization_level == 4  # type: ignore[attr-defined]
    assert config.profiles[0].shapes == {"x": ((1, 2, 32, 32), (3, 2, 32, 32), (8, 2, 32, 32))}
    assert config.flags == []


def test_the_types_are_in_the_graph() -> None:
    trt = FakeTensorRt("11.4.1")
    builder = TensorRtBuilder(trt)
    for precision in ("fp32", "fp16", "int8"):
        build(builder, convolution(1, quantized=True), precision=precision)
    kinds = [{t.data_type for t in onnx.load_from_string(parsed).graph.initializer}
             for parsed in trt.parsed]
    FLOAT, INT8, HALF = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16)
    assert kinds == [{FLOAT}, {HALF}, {HALF, INT8}]


def test_compatible_plans() -> None:
    trt = FakeTensorRt("10.3.0")
    build(TensorRtBuilder(trt), convolution(1, quantized=False),
          settings=Settings(version_compatible=True, hardware_compatible=True))
    assert trt.configs[0].flags == ["version"]
    assert trt.configs[0].hardware_compatibility_level == "ampere+"  # type: ignore[attr-defined]


def test_the_timing_cache_grows_and_a_foreign_one_is_not_used() -> None:
    builder = TensorRtBuilder(FakeTensorRt("10.3.0"))
    first = build(builder, convolution(1, quantized=False))
    second = build(builder, convolution(1, quantized=False), timing_cache=first.timing_cache)
    assert (first.timing_cache, second.timing_cache) == (b"gpu+", b"gpu++")
    other = build(builder, convolution(1, quantized=False), timing_cache=b"another gpu")
    assert other.timing_cache == b"gpu+"
    assert "another GPU or version" in other.notes[0]


def test_a_timing_cache_is_required_only_where_a_miss_can_fail() -> None:
    trt = FakeTensorRt("11.4.1")
    settings = Settings(require_timing_cache=True)
    build(TensorRtBuilder(trt), convolution(1, quantized=False), settings=settings)
    assert trt.configs[0].flags == ["miss"]
    with pytest.raises(ConfigError, match=r"10\.3\.0, which cannot fail on a miss"):
        build(TensorRtBuilder(FakeTensorRt("10.3.0")), convolution(1, quantized=False),
              settings=settings)


@pytest.mark.parametrize(("version", "flags", "network"), [
    ("10.3.0", ["fallback", "fp16"], 0), ("11.4.1", ["fallback"], 0)])
def test_the_dla_says_what_it_leaves_to_the_gpu(
    version: str, flags: list[str], network: int
) -> None:
    trt = FakeTensorRt(version, dla_cores=2)
    plan = build(TensorRtBuilder(trt), convolution(1, quantized=False), precision="fp16",
                 settings=Settings(dla=1))
    assert plan.notes == ("on the GPU, not on the DLA: 1 cast",)
    assert trt.configs[0].flags == flags
    assert trt.network_flags == [network]
    assert (trt.configs[0].DLA_core, trt.configs[0].default_device_type) == (  # type: ignore[attr-defined]
        1, "dla")


def test_a_segment_that_would_run_on_the_gpu_alone_is_no_dla_segment() -> None:
    trt = FakeTensorRt("10.3.0", dla_cores=2, layers=("CAST",))
    with pytest.raises(ModelError, match=r"no layer of the segment can run on the DLA"):
        build(TensorRtBuilder(trt), convolution(1, quantized=False), settings=Settings(dla=0))


def test_a_failed_build_says_the_errors_and_not_the_warnings() -> None:
    builder = TensorRtBuilder(FakeTensorRt("10.3.0", fails="Error Code 10: no implementation"))
    with pytest.raises(ModelError, match=r"cannot build it: Error Code 10: no impl") as caught:
        build(builder, convolution(1, quantized=False))
    assert "a warning" not in str(caught.value)


def test_what_is_opened_is_said_and_known_to_be_on_a_jetson(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def opened(library: str, **how: Any) -> FakeTensorRt:
        asked.append((library, how))
        return FakeTensorRt("10.3.0")

    monkeypatch.setattr(module, "open_library", opened)
    for board in (None, "NVIDIA Jetson Orin Nano"):
        monkeypatch.setattr(hardware, "jetson", lambda board=board: board)
        assert open_tensorrt().version == "10.3.0"
    open_tensorrt_rtx()
    assert [(library, how["on_jetson"]) for library, how in asked] == [
        ("tensorrt", False), ("tensorrt", True), ("tensorrt_rtx", True)]
    assert asked[0][1]["purpose"] == "building engines with tensorrt"
