"""Plans on a GPU that is not there: what is loaded, refused, copied and skipped."""

from __future__ import annotations

import hashlib
import shlex
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgepkd.bundle.engine_files import read_engines
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, MissingExtraError, ModelError
from edgepkd.machine import hardware
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.session import Session
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, FakeCuda, FakeTrt, add_engines, install
from tests.stored_engines import edit, store

Fakes = tuple[FakeTrt, FakeCuda]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


def motion(*, frames: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 2, 32, 32)).astype(np.float32)


def test_a_chain_answers_as_on_the_cpu_and_only_logits_come_back(
    bundle: Bundle, fakes: Fakes
) -> None:
    trt, cuda = fakes
    add_engines(bundle)
    runner, other = TensorRtRunner(bundle, TARGET), OpenVinoRunner(bundle)
    assert runner.backend.startswith("tensorrt 10.3.0 Orin")
    for frames, seed in ((2, 0), (1, 1), (2, 2)):
        mine: Any = motion(frames=frames, seed=seed)
        theirs: Any = motion(frames=2, seed=seed)[:frames]
        if frames == 2:
            theirs = mine
        for k in range(1, 5):
            mine, logits = runner.run(Position("mv", k), mine)
            if frames == 2:
                theirs, expected = other.run(Position("mv", k), theirs)
                assert logits == pytest.approx(expected, abs=1e-5)
            assert logits.shape == (frames, 2)
        assert mine is None, "the last segment has nothing to hand on"
    assert trt.enqueued == [2] * 4 + [1] * 4 + [2] * 4
    assert set(cuda.to_host) == {2 * 2 * 4, 1 * 2 * 4}, "logits of 2 or 1 frames, nothing else"
    assert len(trt.deserialised) == 4, "a plan is loaded once"


def test_nothing_is_loaded_before_it_is_asked_for(bundle: Bundle, fakes: Fakes) -> None:
    trt, _ = fakes
    add_engines(bundle)
    runner = TensorRtRunner(bundle, TARGET)
    assert trt.deserialised == []
    runner.prepare(Position("iframe", 2))
    runner.prepare(Position("iframe", 2))
    assert len(trt.deserialised) == 1


class Still:
    """A clip that moves to the right, of which only motion may be asked."""

    index, start_s, end_s = 0, 0.0, 1.0

    class counters:
        packets_decoded = packets_skipped = frames_reconstructed = 0
        iframes_converted = residuals_made = 0

    def tensor(self, modality: str) -> np.ndarray:
        assert modality == "mv"
        x = np.zeros((2, 2, 32, 32), np.float32)
        x[:, 0] = 1.0
        return x

    def release(self) -> None: ...


def test_engines_that_are_not_reached_get_no_call(
    bundle: Bundle, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepkd.runtime.answers import DecodeCounts

    monkeypatch.setattr(DecodeCounts, "of", lambda counters: None)
    trt, _ = fakes
    add_engines(bundle)
    answer = Session(bundle, TensorRtRunner(bundle, TARGET)).classify(Still())  # type: ignore[arg-type]
    assert (answer.label, answer.exit_number) == ("right", 1)
    assert (len(trt.deserialised), len(trt.enqueued)) == (1, 1)


@pytest.mark.parametrize(("change", "words"), [
    ({"library_version": "10.13.2"}, "built with tensorrt 10.13.2, here is 10.3.0"),
    ({"compute_capability": "7.2"}, "built for compute capability 7.2, here is 8.7"),
    ({"machine": "riscv64"}, "built on machine riscv64"),
    ({"os": "plan9"}, "built on system plan9"),
])
def test_a_foreign_engine_never_reaches_the_deserialiser(
    bundle: Bundle, fakes: Fakes, change: dict[str, str], words: str
) -> None:
    trt, _ = fakes
    add_engines(bundle, **change)
    with pytest.raises(BundleError) as caught:
        TensorRtRunner(bundle, TARGET)
    assert words in caught.value.message
    assert f"edgepkd export {bundle.path} --target {TARGET}" in str(caught.value.hint)
    assert trt.deserialised == []


def test_without_a_gpu_nothing_is_to_be_built_again(
    bundle: Bundle, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_engines(bundle)
    monkeypatch.setattr(hardware, "compute_capability", lambda: None)
    with pytest.raises(BundleError, match="no NVIDIA GPU") as caught:
        TensorRtRunner(bundle, TARGET)
    assert "--backend openvino" in str(caught.value.hint)


def test_engines_of_another_bundle_are_refused(
    tmp_path: Path, bundle: Bundle, fakes: Fakes
) -> None:
    other = make_bundle(tmp_path / "other", motion_scale=3.0)
    folder = add_engines(other)
    folder.parent.rename(bundle.path / "engines")
    with pytest.raises(BundleError, match=r"mv_1 was built from another segments/mv_1\.onnx"):
        TensorRtRunner(bundle, TARGET)


def compatible(values: dict[str, Any]) -> None:
    values["flags"] = {"version_compatible": True}


def test_host_code_of_a_plan_is_allowed_only_where_the_user_says_so(
    bundle: Bundle, fakes: Fakes
) -> None:
    trt, cuda = fakes
    folder = add_engines(bundle)
    runner = TensorRtRunner(bundle, TARGET, trust_engines=True)
    assert not hasattr(runner._runtime, "engine_host_code_allowed"), "these plans have none"
    edit(folder, compatible)
    before = dict(cuda.calls)
    with pytest.raises(BundleError, match="version-compatible: they bring code") as caught:
        TensorRtRunner(bundle, TARGET)
    assert "--trust-engines" in str(caught.value.hint)
    assert (trt.deserialised, dict(cuda.calls)) == ([], before)
    assert TensorRtRunner(bundle, TARGET, trust_engines=True)._runtime.engine_host_code_allowed


def test_engines_from_elsewhere_need_trust(bundle: Bundle, fakes: Fakes) -> None:
    trt, cuda = fakes
    edit(add_engines(bundle), lambda values: values.update(precision="fp32"), listed=False)
    with pytest.raises(BundleError, match="were not built here by this user") as caught:
        TensorRtRunner(bundle, TARGET)
    assert "--trust-engines" in str(caught.value.hint)
    assert (trt.deserialised, cuda.calls) == ([], {})
    TensorRtRunner(bundle, TARGET, trust_engines=True).prepare(Position("mv", 1))


@pytest.mark.parametrize(("damage", "words"), [
    ("cut", "bytes; its sidecar says"), ("changed", "has SHA-256"), ("gone", "is missing")])
def test_a_damaged_plan_never_reaches_the_deserialiser(
    bundle: Bundle, fakes: Fakes, damage: str, words: str
) -> None:
    trt, _ = fakes
    plan = add_engines(bundle) / "mv_1.engine"
    content = plan.read_bytes()
    if damage == "gone":
        plan.unlink()
    else:
        plan.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\x01")
    with pytest.raises(BundleError, match=words):
        TensorRtRunner(bundle, TARGET).prepare(Position("mv", 1))
    assert trt.deserialised == []


def test_what_the_library_refuses_is_said_in_its_words(bundle: Bundle, fakes: Fakes) -> None:
    trt, _ = fakes
    trt.refuses = True
    add_engines(bundle)
    with pytest.raises(ModelError, match=r"cannot load mv_1\.engine: plan is corrupt"):
        TensorRtRunner(bundle, TARGET).prepare(Position("mv", 1))


@pytest.mark.parametrize(("position", "x", "words"), [
    (Position("mv", 1), np.zeros((3, 2, 32, 32), np.float32), "got 3 frames.*1 to 2"),
    (Position("mv", 1), np.zeros((2, 3, 32, 32), np.float32), "got an array"),
    (Position("mv", 2), np.zeros((2, 2, 16, 16), np.float32), "allowed: the features of mv_1"),
])
def test_input_that_does_not_fit_is_refused(
    bundle: Bundle, fakes: Fakes, position: Position, x: np.ndarray, words: str
) -> None:
    trt, _ = fakes
    add_engines(bundle)
    with pytest.raises(ModelError, match=words):
        TensorRtRunner(bundle, TARGET).run(position, x)
    assert trt.enqueued == []


def test_the_command_that_builds_more_can_be_typed(tmp_path: Path, fakes: Fakes) -> None:
    (tmp_path / "my $(id) files").mkdir()
    bundle = make_bundle(tmp_path / "my $(id) files")
    add_engines(bundle)
    with pytest.raises(ModelError) as caught:
        TensorRtRunner(bundle, TARGET).run(
            Position("mv", 1), np.zeros((3, 2, 32, 32), np.float32))
    assert caught.value.hint is not None
    typed = shlex.split(caught.value.hint.partition(": ")[2])
    assert typed[:4] == ["edgepkd", "export", str(bundle.path), "--target"]
    assert typed[4:] == [TARGET, "--batch", "3", "--force"]


def test_a_failing_cuda_call_is_named(bundle: Bundle, fakes: Fakes) -> None:
    _, cuda = fakes
    add_engines(bundle)
    runner = TensorRtRunner(bundle, TARGET)
    cuda.fails.add("cudaMalloc")
    with pytest.raises(ModelError, match=r"cudaMalloc failed: out of memory \(CUDA error 2\)"):
        runner.prepare(Position("mv", 1))


def test_memory_is_given_back(bundle: Bundle, fakes: Fakes) -> None:
    _, cuda = fakes
    add_engines(bundle)
    runner = TensorRtRunner(bundle, TARGET)
    runner.run(Position("mv", 1), motion())
    del runner
    assert cuda.calls["cudaFree"] == cuda.calls["cudaMalloc"] > 0
    assert cuda.calls["cudaFreeHost"] == cuda.calls["cudaMallocHost"] > 0
    assert cuda.calls["cudaStreamDestroy"] == 1


def test_closing_frees_everything_once_and_refuses_what_comes(
    bundle: Bundle, fakes: Fakes
) -> None:
    trt, cuda = fakes
    add_engines(bundle)
    runner = TensorRtRunner(bundle, TARGET)
    features, _ = runner.run(Position("mv", 1), motion())
    context = weakref.ref(runner._loaded[Position("mv", 1)].context)
    synchronised = cuda.calls["cudaStreamSynchronize"]
    cuda.fails.add("cudaStreamSynchronize")  # a device that is lost must not keep its memory
    runner.close()
    runner.close()
    assert context() is None
    assert cuda.calls["cudaStreamSynchronize"] == synchronised + 1
    assert cuda.calls["cudaFree"] == cuda.calls["cudaMalloc"] > 0
    assert cuda.calls["cudaFreeHost"] == cuda.calls["cudaMallocHost"] > 0
    assert cuda.calls["cudaStreamDestroy"] == 1
    for use in (lambda: runner.prepare(Position("mv", 1)),
                lambda: runner.run(Position("mv", 2), features)):
        with pytest.raises(ModelError, match=r"runner on tensorrt .* is closed"):
            use()
    assert len(trt.enqueued) == 1


def test_without_tensorrt_the_extra_is_named(
    bundle: Bundle, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    add_engines(bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError) as caught:
        TensorRtRunner(bundle, TARGET)
    assert "tensorrt" in str(caught.value)


def test_torch_tensorrt_numbers_its_outputs(bundle: Bundle, fakes: Fakes) -> None:
    folder = add_engines(bundle)
    engines, plans = read_engines(bundle.path, TARGET), {}
    for segment, record in engines.plans.items():
        model = onnx.load(str(folder / record.file))
        names = {o.name: f"output{i}" for i, o in enumerate(model.graph.output)}
        for node in model.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]
        for output in model.graph.output:
            output.name = names[output.name]
        content = model.SerializeToString()
        (folder / record.file).write_bytes(content)
        plans[segment] = replace(record, bytes=len(content),
                                 sha256=hashlib.sha256(content).hexdigest())
    store(folder, replace(engines, plans=plans))
    with pytest.raises(ModelError, match="has the tensors output0, output1, x"):
        TensorRtRunner(bundle, TARGET).prepare(Position("mv", 1))
    store(folder, replace(engines, plans=plans, via="torch-tensorrt"))
    runner, other = TensorRtRunner(bundle, TARGET), OpenVinoRunner(bundle)
    mine: Any = motion()
    theirs: Any = mine
    for k in range(1, 5):
        mine, logits = runner.run(Position("mv", k), mine)
        theirs, expected = other.run(Position("mv", k), theirs)
        assert logits == pytest.approx(expected, abs=1e-5)
