"""Which runner computes the segments: engines that fit, the CPU else, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle.engines import SIDECAR
from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ConfigError
from edgepkd.pipeline.run import ClipDone, RunConfig, RunSummary, run
from edgepkd.runtime.backend import BackendChosen, open_runner
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.settings import ModelConfig
from edgepkd.runtime.tensorrt_runner import TensorRtRunner
from tests.clips import encode_clip, translating_texture
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, add_engines, install
from tests.runtime.openvino_engines import add_openvino_engines, forge
from tests.stored_engines import edit

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


def test_without_engines_auto_is_the_cpu_and_there_is_nothing_to_say(bundle: Bundle) -> None:
    runner, choice = open_runner(bundle, ModelConfig())
    assert isinstance(runner, OpenVinoRunner)
    assert choice is None


def test_auto_takes_engines_that_fit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    add_engines(bundle)
    runner, choice = open_runner(bundle, ModelConfig())
    assert isinstance(runner, TensorRtRunner)
    assert choice is not None
    assert (choice.backend, "this machine" in choice.reason) == (TARGET, True)
    assert isinstance(open_runner(bundle, ModelConfig(backend="openvino"))[0], OpenVinoRunner)


def test_auto_passes_foreign_engines_by_and_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    add_engines(bundle, compute_capability="7.2")
    runner, choice = open_runner(bundle, ModelConfig())
    assert isinstance(runner, OpenVinoRunner)
    assert choice is not None
    assert choice.backend == "openvino"
    assert "7.2" in choice.reason
    with pytest.raises(BundleError, match=r"7\.2"):
        open_runner(bundle, ModelConfig(backend=TARGET))
    assert trt.deserialised == []


def test_engines_that_are_not_there_are_an_error_with_the_command(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no engines for 'jetson-thor'") as caught:
        open_runner(bundle, ModelConfig(backend="jetson-thor"))
    assert "--target jetson-thor" in str(caught.value.hint)


# ---- engines for the CPU


def opened(bundle: Bundle, backend: str = "auto") -> tuple[str, str | None, str]:
    """Engines that a run would use (none: ''), and what it tells of its choice."""
    runner, choice = open_runner(bundle, ModelConfig(backend=backend, threads=1))
    _, _, engines = runner.backend.partition(" with engines/")
    return engines, choice and choice.backend, choice.reason if choice else ""


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_engines_for_the_cpu_are_taken_and_it_is_told(bundle: Bundle, backend: str) -> None:
    add_openvino_engines(bundle)
    assert opened(bundle, backend) == ("openvino", "openvino",
                                       "its engines were built for this machine.")


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_foreign_engines_for_the_cpu_are_left_alone_and_it_is_told(
    bundle: Bundle, backend: str
) -> None:
    add_openvino_engines(bundle, instruction_sets=("avx9",))
    engines, chosen, reason = opened(bundle, backend)
    assert (engines, chosen) == ("", "openvino")
    assert reason.startswith("the engines for 'openvino' do not fit: built on another kind of CPU,"
                             " with avx9")
    assert reason.endswith("ONNX files of the bundle are compiled for the CPU instead.")


def test_damaged_engines_are_a_note_under_auto_and_an_error_where_asked_for(
    bundle: Bundle
) -> None:
    folder = add_openvino_engines(bundle)
    for plan in folder.glob("*.engine"):
        plan.write_bytes(b"rubbish")
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen) == ("", "openvino")
    assert "'openvino' are damaged: mv_1.engine has 7 bytes" in reason
    with pytest.raises(BundleError, match=r"are damaged: mv_1\.engine") as caught:
        open_runner(bundle, ModelConfig(backend="openvino"))
    assert f"edgepkd export {bundle.path} --target openvino" in str(caught.value.hint)
    (folder / SIDECAR).write_text("{")
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen, "cannot be read as JSON" in reason) == ("", "openvino", True)
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        open_runner(bundle, ModelConfig(backend="openvino"))


def test_damaged_engines_for_a_gpu_are_a_note_under_auto(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    (add_engines(bundle) / "residual_4.engine").write_bytes(b"rubbish")
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen) == ("", "openvino")
    assert f"'{TARGET}' are damaged: residual_4.engine" in reason
    assert trt.deserialised == []


def test_an_engine_that_openvino_refuses_is_a_note_under_auto(bundle: Bundle) -> None:
    forge(add_openvino_engines(bundle), "mv_1", b"rubbish" * 100)
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen, "cannot load mv_1.engine" in reason) == ("", "openvino", True)


def test_a_gpu_comes_first_and_the_cpu_next(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    add_openvino_engines(bundle, target="a-kiosk")
    folder = add_engines(bundle)
    runner, choice = open_runner(bundle, ModelConfig())
    assert isinstance(runner, TensorRtRunner)
    assert choice is not None
    edit(folder, lambda values: values["built_on"].update(compute_capability="7.2"))
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen) == ("a-kiosk", "a-kiosk")
    assert "7.2" in reason
    assert reason.endswith("built for this machine.")
    assert opened(bundle, "openvino")[0] == "a-kiosk"
    assert opened(bundle, "a-kiosk") == ("a-kiosk", None, "")


# ---- engines that were not built here


def disown(folder: Path) -> None:
    """As if the bundle had come with them."""
    edit(folder, lambda values: next(iter(values["plans"].values())).update(build_s=9.5),
         listed=False)


def test_auto_passes_engines_from_elsewhere_by_and_says_what_to_do(bundle: Bundle) -> None:
    disown(add_openvino_engines(bundle))
    for backend in ("auto", "openvino"):
        engines, chosen, reason = opened(bundle, backend)
        assert (engines, chosen) == ("", "openvino")
        assert reason.startswith("the engines for 'openvino' were not built here by this user.")
        assert f"edgepkd export {bundle.path} --target openvino --precision fp32 --force" in reason
        assert "--trust-engines" in reason
        assert reason.endswith("ONNX files of the bundle are compiled for the CPU instead.")


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_trusted_engines_are_used(bundle: Bundle, backend: str) -> None:
    disown(add_openvino_engines(bundle))
    runner, choice = open_runner(bundle, ModelConfig(backend=backend, trust_engines=True))
    assert runner.backend.endswith("with engines/openvino")
    assert choice == BackendChosen("openvino", "its engines were built for this machine.")


def test_plans_from_elsewhere_never_reach_a_library(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, cuda = install(monkeypatch)
    disown(add_engines(bundle))
    disown(add_openvino_engines(bundle, target="a-kiosk"))
    imported: list[bytes] = []
    monkeypatch.setattr("edgepkd.libraries.openvino.import_segment",
                        lambda plan, **_: imported.append(plan))
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen) == ("", "openvino")
    assert reason.count("were not built here by this user") == 2
    for target in (TARGET, "a-kiosk"):
        with pytest.raises(BundleError, match="were not built here by this user") as caught:
            open_runner(bundle, ModelConfig(backend=target))
        assert "--trust-engines" in str(caught.value.hint)
    assert (trt.deserialised, imported, cuda.calls) == ([], [], {})
    runner, _ = open_runner(bundle, ModelConfig(backend=TARGET, trust_engines=True))
    runner.prepare(Position("mv", 1))
    assert len(trt.deserialised) == 1


def test_engines_that_do_not_fit_are_not_recommended(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    disown(add_engines(bundle, compute_capability="7.2"))
    _, _, reason = opened(bundle)
    assert "7.2" in reason
    assert "--trust-engines" not in reason


def test_trust_does_not_make_engines_fit_or_whole(bundle: Bundle) -> None:
    folder = add_openvino_engines(bundle)
    disown(folder)
    (folder / "mv_1.engine").write_bytes(b"rubbish")
    runner, choice = open_runner(bundle, ModelConfig(trust_engines=True))
    assert "engines" not in runner.backend
    assert choice is not None
    assert "are damaged: mv_1.engine" in choice.reason


def test_links_in_the_place_of_engines_are_told(bundle: Bundle, tmp_path: Path) -> None:
    folder = add_openvino_engines(bundle)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    engines, chosen, reason = opened(bundle)
    assert (engines, chosen) == ("", "openvino")
    assert "engines/openvino is a link; allowed: a plain folder" in reason
    with pytest.raises(BundleError, match="is a link"):
        open_runner(bundle, ModelConfig(backend="openvino"))


def test_a_run_answers_with_the_engines_and_with_rubbish_in_their_place(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = encode_clip(tmp_path / "right.mp4", translating_texture(24, (160, 96), (2, 0)))
    config = RunConfig(str(clip), model=bundle.path, threads=1)

    def answers() -> tuple[object, list[float], str]:
        first, *events = run(config)
        got = [event.answer for event in events if isinstance(event, ClipDone)]
        assert {answer.label for answer in got} == {"right"}
        assert isinstance(events[-1], RunSummary)
        return first, [answer.confidence for answer in got], events[-1].backend

    _, onnx, backend = answers()
    assert "engines" not in backend
    folder = add_openvino_engines(bundle)
    first, with_engines, backend = answers()
    assert first == BackendChosen("openvino", "its engines were built for this machine.")
    assert backend.endswith("with engines/openvino")
    assert with_engines == pytest.approx(onnx, abs=1e-5)
    (folder / "mv_1.engine").write_bytes(b"rubbish")
    first, fallen_back, backend = answers()
    assert isinstance(first, BackendChosen)
    assert "damaged" in first.reason
    assert (fallen_back, "engines" in backend) == (onnx, False)


@pytest.mark.parametrize("backend", ["../elsewhere", "", ".", "..", ".gpu.partial", "a/b", "a b",
                                     "-x", "x" * 65, "a\n", "ä"])
def test_a_backend_that_is_no_name_of_a_target_is_refused(backend: str) -> None:
    with pytest.raises(ConfigError, match="backend"):
        RunConfig("x", backend=backend)
