"""The Torch-TensorRT route: real programs of real segments, a stand-in for the library."""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from edgepkd.deploy import torch_tensorrt
from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.models.segmented import Segment
from tests.engines.int8_networks import CROP_PX, frames, int8_network
from tests.models.networks import small_network

SHAPE = (2, CROP_PX, CROP_PX)


class FakeLibrary:
    """Keeps the program and the profile that it is given; answers with `plan` or raises."""

    def __init__(self) -> None:
        self.program: Any = None
        self.settings: dict[str, Any] = {}
        self.error: Exception | None = None
        self.dynamo = SimpleNamespace(
            convert_exported_program_to_serialized_trt_engine=self._convert)

    def Input(self, **profile: Any) -> dict[str, Any]:
        return profile

    def _convert(self, program: Any, **settings: Any) -> bytes:
        if self.error is not None:
            raise self.error
        self.program, self.settings = program, settings
        return b"plan"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()
    monkeypatch.setattr(torch_tensorrt, "require_torch_tensorrt", lambda: fake)
    monkeypatch.setattr(nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    return fake


def segment(number: int = 1) -> Segment:
    return list(small_network("resnet18", modality="mv").eval().pool_first())[number - 1]


def build(part: Segment, precision: Any = "fp32", *, low: int = 1, high: int = 4,
          opt: int | None = None, shape: tuple[int, int, int] = SHAPE) -> bytes:
    return torch_tensorrt.build_segment(
        part, example_shape=shape, min_frames=low, opt_frames=opt or max(low, 2), max_frames=high,
        precision=precision)


@pytest.mark.slow
def test_names_profile_and_answers(library: FakeLibrary) -> None:
    part = segment()
    assert build(part) == b"plan"
    signature = library.program.graph_signature
    assert list(signature.user_inputs) == ["x"]
    assert len(signature.user_outputs) == 2
    (profile,) = library.settings["arg_inputs"]
    assert [profile[f"{k}_shape"][0] for k in ("min", "opt", "max")] == [1, 2, 4]
    assert library.settings["use_explicit_typing"] is True
    for count in (1, 3, 4):  # the batch is free within the profile
        got = library.program.module()(frames(count=count))
        with torch.no_grad():
            assert all(torch.allclose(a, b, atol=1e-5)
                       for a, b in zip(got, part(frames(count=count)), strict=True))


@pytest.mark.slow
def test_the_last_segment_gives_only_logits(library: FakeLibrary) -> None:
    part = segment(4)
    channels = next(part.trunk.parameters()).shape[1]
    build(part, shape=(channels, 4, 4))
    assert len(library.program.graph_signature.user_outputs) == 1


@pytest.mark.slow
def test_fp16_is_inside_and_the_segment_stays_as_it_was(library: FakeLibrary) -> None:
    part = segment()
    build(part, "fp16")
    weights = [w.dtype for name, w in library.program.state_dict.items() if "weight" in name]
    assert set(weights) == {torch.float16}
    outputs = next(n for n in library.program.graph.nodes if n.op == "output").args[0]
    assert {node.meta["val"].dtype for node in outputs} == {torch.float32}
    assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in part.parameters())


@pytest.mark.slow
def test_int8_is_traced_in_the_mode_that_gives_operators() -> None:
    # The operators themselves appear on a CUDA device only.
    from modelopt.torch.quantization.utils import is_torch_export_mode

    for precision, mode in (("int8", True), ("fp16", False), ("fp32", False)):
        with torch_tensorrt._quantizers_as_operators(precision):  # type: ignore[arg-type]
            assert is_torch_export_mode() is mode
        assert not is_torch_export_mode()


@pytest.mark.slow
def test_no_scale_is_lost_in_fp16(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = copy.deepcopy(next(iter(int8_network())))
    ranges = {n: b for n, b in part.named_buffers() if n.endswith("weight_quantizer._amax")}
    for values in ranges.values():
        values.view(-1)[0] = 1e-9  # a channel that BatchNorm has all but switched off
    # The operators are for a CUDA device; here what is traced is their ranges.
    monkeypatch.setattr(torch_tensorrt, "_quantizers_as_operators", lambda _: nullcontext())
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, *_: Any, **__: Any) -> None:
        seen.extend(b for n, b in module.named_buffers() if n.endswith("_amax"))
        raise RuntimeError("traced")

    monkeypatch.setattr(torch.export, "export", keep)
    with pytest.raises(ModelError, match="traced"):
        build(part, "int8")
    assert len(seen) > len(ranges)
    assert all(amax.dtype == torch.float16 and bool((amax / 127 >= 2**-14).all()) for amax in seen)
    assert all(float(values.view(-1)[0]) < 1e-8 for values in ranges.values())


def test_one_batch_size_is_static(library: FakeLibrary) -> None:
    build(segment(), low=3, high=3)
    (node,) = [n for n in library.program.graph.nodes if n.name == "x"]
    assert node.meta["val"].shape == (3, *SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "said"), [
    (RuntimeError("no converter for aten.foo\nmore"), "RuntimeError: no converter for aten.foo"),
    (UnboundLocalError("interpreter_result"), "it logged the reason above"),
])
def test_what_it_cannot_convert_is_a_clear_error(
    library: FakeLibrary, error: Exception, said: str
) -> None:
    library.error = error
    with pytest.raises(ModelError, match=said):
        build(segment())


# ---- where it cannot work


def installed(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(torch_tensorrt._optional, "installed_version", lambda name: version)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"edgepkd\[torch-tensorrt\]"):
        torch_tensorrt.require_torch_tensorrt()


def test_another_torch_is_named_with_the_pair_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "2.99.0")
    with pytest.raises(MissingExtraError, match=r"needs torch 2\.99\.\*, here is") as caught:
        torch_tensorrt.require_torch_tensorrt()
    assert "'torch==2.99.*'" in (caught.value.hint or "")


def test_no_cuda_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch.__version__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="needs a CUDA device") as caught:
        torch_tensorrt.require_torch_tensorrt()
    assert "tensorrt-rtx" in (caught.value.hint or "")


@pytest.mark.slow
@pytest.mark.parametrize(("high", "batch"), [(4, 3), (1, 1)])
def test_clips_of_one_pass_leave_the_batch_as_free_as_others(
    library: FakeLibrary, high: int, batch: int
) -> None:
    part = segment()
    build(part, opt=1, high=high)
    (profile,) = library.settings["arg_inputs"]
    assert [profile[f"{k}_shape"][0] for k in ("min", "opt", "max")] == [1, 1, high]
    got = library.program.module()(frames(count=batch))
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-5)
                   for a, b in zip(got, part(frames(count=batch)), strict=True))
