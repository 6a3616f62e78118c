"""Engines for the CPU are what answers; foreign and damaged ones never reach OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.bundle.folder import Folder
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ModelError
from edgepkd.libraries import openvino
from edgepkd.machine import hardware
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.runner import SegmentRunner
from tests.engines.segments import FRAMES, conv_bundle
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import TARGET, add_openvino_engines, forge
from tests.stored_engines import edit

pytestmark = pytest.mark.slow

MV_1 = Position("mv", 1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every plan that OpenVINO is given."""
    plans: list[bytes] = []
    real = openvino.import_segment

    def spy(plan: bytes, **settings: Any) -> Any:
        plans.append(plan)
        return real(plan, **settings)

    monkeypatch.setattr(openvino, "import_segment", spy)
    return plans


def chain(runner: SegmentRunner, *, frames: int = 2, seed: int = 0) -> np.ndarray:
    """Logits of the four exits of mv, [4, frames, classes]."""
    x: Any = np.random.default_rng(seed).normal(size=(frames, 2, 32, 32)).astype(np.float32)
    answers = []
    for k in range(1, 5):
        x, logits = runner.run(Position("mv", k), x)
        answers.append(logits)
    return np.stack(answers)


def test_engines_answer_as_the_onnx_files_do(bundle: Bundle, imported: list[bytes]) -> None:
    folder = add_openvino_engines(bundle)
    runner = OpenVinoRunner(bundle, target=TARGET)
    assert imported == [], "nothing is loaded before it is asked for"
    assert chain(runner) == pytest.approx(chain(OpenVinoRunner(bundle)), abs=1e-5)
    assert imported == [(folder / f"mv_{k}.engine").read_bytes() for k in range(1, 5)]
    assert runner.backend == f"openvino {openvino.version()} CPU with engines/openvino"
    runner.close()
    with pytest.raises(ModelError, match="is closed"):
        runner.prepare(MV_1)


def test_it_is_the_engine_that_answers(bundle: Bundle, tmp_path: Path) -> None:
    weaker = make_bundle(tmp_path / "weaker", motion_scale=10.0)  # a quarter of the logits
    add_openvino_engines(bundle, sources=weaker)
    got, onnx = chain(OpenVinoRunner(bundle, target=TARGET)), chain(OpenVinoRunner(bundle))
    assert got == pytest.approx(onnx / 4, abs=1e-5)


def test_the_precision_of_an_engine_counts(tmp_path: Path) -> None:
    quantised = conv_bundle(tmp_path, width=16)
    for precision in ("int8", "fp32"):
        add_openvino_engines(quantised, target=precision, precision=precision)  # type: ignore[arg-type]
    onnx = chain(OpenVinoRunner(quantised), frames=FRAMES)
    int8, fp32 = (chain(OpenVinoRunner(quantised, target=target), frames=FRAMES)
                  for target in ("int8", "fp32"))
    assert int8 == pytest.approx(onnx, abs=1e-5)
    assert np.abs(fp32 - onnx).max() > 1e-4, "rounding of INT8"
    assert np.abs(fp32 - onnx).max() < 0.05 * np.abs(onnx).max()


@pytest.mark.parametrize("threads", [None, 1])
def test_engines_run_with_the_settings_of_the_runner(bundle: Bundle, threads: int | None) -> None:
    add_openvino_engines(bundle)
    runner = OpenVinoRunner(bundle, target=TARGET, threads=threads)
    model = runner._ready(MV_1)._request.get_compiled_model()
    compiled = OpenVinoRunner(bundle, threads=threads)._ready(MV_1)._request.get_compiled_model()
    for name in ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "NUM_STREAMS",
                 "PERFORMANCE_HINT"):
        assert model.get_property(name) == compiled.get_property(name), name
    assert threads is None or model.get_property("INFERENCE_NUM_THREADS") == threads


@pytest.mark.parametrize(("change", "words"), [
    (lambda v: v["built_on"].update(library_version="2023.1.0"),
     "built with openvino 2023.1.0, here is"),
    (lambda v: v["built_on"].update(machine="riscv64"), "built on machine riscv64"),
    (lambda v: v["built_on"].update(os="plan9"), "built on system plan9"),
    (lambda v: v["built_on"]["instruction_sets"].append("amx_int9"),
     "built on another kind of CPU, with amx_int9"),
    (lambda v: v["built_on"].update(instruction_sets=None), "CPU that the sidecar does not descr"),
    (lambda v: v["plans"]["mv_1"].update(source_sha256="0" * 64), "mv_1 was built from another"),
    (lambda v: v["plans"]["mv_1"].update(min_frames=5, opt_frames=5, max_frames=5),
     "mv_1 takes 5 to 5 frames, a clip has 2"),
    (lambda v: v["plans"].pop("mv_4"), "mv_4 has no engine"),
])
def test_foreign_and_stale_engines_never_reach_openvino(
    bundle: Bundle, imported: list[bytes], change: Callable[[Any], object], words: str
) -> None:
    edit(add_openvino_engines(bundle), change)
    with pytest.raises(BundleError) as caught:
        OpenVinoRunner(bundle, target=TARGET)
    assert words in caught.value.message
    assert f"edgepkd export {bundle.path} --target openvino" in str(caught.value.hint)
    assert imported == []


@pytest.mark.parametrize(("damage", "words"), [
    (lambda plan: plan.write_bytes(b"rubbish"), "has 7 bytes; its sidecar says"),
    (lambda plan: plan.write_bytes(b"!" + plan.read_bytes()[1:]), "has SHA-256"),
    (lambda plan: plan.unlink(), "is missing"),
])
def test_damaged_engines_never_reach_openvino(
    bundle: Bundle, imported: list[bytes], damage: Callable[[Path], object], words: str
) -> None:
    damage(add_openvino_engines(bundle) / "mv_1.engine")
    with pytest.raises(BundleError, match=words) as caught:
        OpenVinoRunner(bundle, target=TARGET).prepare(MV_1)
    assert "--target openvino --precision fp32 --force" in str(caught.value.hint)
    assert imported == []


def test_engines_from_elsewhere_need_trust(bundle: Bundle, imported: list[bytes]) -> None:
    edit(add_openvino_engines(bundle), lambda values: values.update(precision="auto"),
         listed=False)
    with pytest.raises(BundleError, match="were not built here by this user") as caught:
        OpenVinoRunner(bundle, target=TARGET)
    assert "--trust-engines" in str(caught.value.hint)
    assert imported == []
    OpenVinoRunner(bundle, target=TARGET, trust_engines=True).prepare(MV_1)
    assert len(imported) == 1


def test_what_is_loaded_is_what_was_hashed(
    bundle: Bundle, imported: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that is changed between the look at it and its use."""
    folder = add_openvino_engines(bundle)
    right = (folder / "mv_1.engine").read_bytes()
    real, reads = Folder.read, []

    def read(self: Folder, relative: str, *, max_bytes: int) -> bytes | None:
        content = real(self, relative, max_bytes=max_bytes)
        if relative == "mv_1.engine":
            reads.append(content)
            (folder / relative).write_bytes(b"!" * len(right))
        return content

    monkeypatch.setattr(Folder, "read", read)
    OpenVinoRunner(bundle, target=TARGET).prepare(MV_1)
    assert imported == reads == [right]
    with pytest.raises(BundleError, match="has SHA-256"):
        OpenVinoRunner(bundle, target=TARGET).prepare(MV_1)
    assert imported == [right]


def test_what_openvino_refuses_is_said_in_its_words(bundle: Bundle) -> None:
    folder = add_openvino_engines(bundle)
    forge(folder, "mv_1", b"rubbish" * 100)
    with pytest.raises(ModelError, match=r"cannot load mv_1\.engine of 'openvino': .*\w"):
        OpenVinoRunner(bundle, target=TARGET).prepare(MV_1)
    forge(folder, "mv_1", (folder / "mv_2.engine").read_bytes())
    with pytest.raises(ModelError, match=r"mv_1\.engine of 'openvino' has the tensors"):
        OpenVinoRunner(bundle, target=TARGET).prepare(MV_1)


@pytest.mark.parametrize(("precision", "refused"), [("int8", True), ("fp32", False)])
def test_full_range_weights_are_refused_where_the_cpu_would_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, refused: bool
) -> None:
    bundle = conv_bundle(tmp_path, width=8)
    segments = tuple(replace(s, precision="int8", weight_bits=8)
                     for s in bundle.manifest.segments)
    quantised = replace(bundle, manifest=replace(bundle.manifest, segments=segments))
    add_openvino_engines(quantised, precision=precision)
    monkeypatch.setattr(hardware, "overflows_bytes", lambda: True)
    runner = OpenVinoRunner(quantised, target=TARGET)
    if not refused:
        runner.prepare(MV_1)
        return
    with pytest.raises(ModelError, match=r"segment mv_1: .* no VNNI"):
        runner.prepare(MV_1)


def test_stacked_fields_are_one_row_of_an_engine(tmp_path: Path) -> None:
    stacked, apart = make_bundle(tmp_path / "a", stack=True), make_bundle(tmp_path / "b")
    add_openvino_engines(stacked)
    fields: Any = np.random.default_rng(0).normal(size=(2, 2, 32, 32)).astype(np.float32)
    expected = OpenVinoRunner(apart).run(MV_1, fields)[1].mean(axis=0)  # its networks are linear
    for target in (None, TARGET):
        logits = OpenVinoRunner(stacked, target=target).run(MV_1, fields.reshape(1, 4, 32, 32))[1]
        assert logits.shape == (1, 2)
        assert logits[0] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match="mv_1"):
        OpenVinoRunner(stacked, target=TARGET).run(MV_1, fields)
