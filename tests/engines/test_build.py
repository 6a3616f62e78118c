"""Builds of a whole bundle: in place at once, resumed after a crash, untouched after an error."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engine_files import engine_targets, read_engines
from edgepkd.bundle.engines import TIMING_CACHE
from edgepkd.bundle.reading import Bundle
from edgepkd.engines.targets import load_target
from edgepkd.errors import BundleError, ModelError, StorageError
from edgepkd.machine import hardware
from tests.engines.builders import FOLDER, SPEC
from tests.engines.builds import SEGMENTS, build, built, listing, script
from tests.engines.segments import FRAMES, conv_bundle, convolution
from tests.processes import started

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_plans_and_sidecar_are_in_place_and_nothing_else(bundle: Bundle) -> None:
    before = listing(bundle)
    engines = build(bundle, precision="int8")
    assert listing(bundle) - before == {f"engines/gpu/{s}.engine" for s in SEGMENTS} | {
        "engines/gpu/engines.json", f"engines/gpu/{TIMING_CACHE}"}
    again = read_engines(bundle.path, "gpu")
    assert again.plans == engines.plans
    plan = again.plans["mv_2"]
    content = (bundle.path / "engines/gpu/mv_2.engine").read_bytes()
    assert content == b"mv_2 int8 (3, 4, 16, 16)"
    assert (plan.bytes, plan.min_frames, plan.opt_frames, plan.max_frames) == (
        len(content), 1, FRAMES, FRAMES)
    assert plan.source_sha256 == bundle.manifest.files["segments/mv_2.onnx"].sha256
    assert again.built_on.library_version == "10.3.0"


def test_the_timing_cache_passes_from_segment_to_segment_and_build_to_build(
    bundle: Bundle,
) -> None:
    build(bundle)
    path = bundle.path / "engines/gpu" / TIMING_CACHE
    assert path.read_bytes() == b"mv_1mv_2mv_3mv_4"
    build(bundle, force=True)
    assert path.read_bytes() == b"mv_1mv_2mv_3mv_4" * 2


def test_what_is_up_to_date_is_not_built_again(bundle: Bundle) -> None:
    first = build(bundle, precision="fp16")
    assert len(built(bundle)) == 4
    assert build(bundle, precision="fp16").plans == first.plans
    assert built(bundle) == []
    build(bundle, precision="fp32")
    assert [line.split()[1] for line in built(bundle)] == ["fp32"] * 4
    (bundle.path / "engines/gpu/mv_3.engine").write_bytes(b"damaged")
    build(bundle, precision="fp32")
    assert len(built(bundle)) == 4


def test_a_larger_batch_is_the_most_and_the_clip_stays_the_best(bundle: Bundle) -> None:
    plan = build(bundle, precision="fp16", max_frames=8).plans["mv_1"]
    assert (plan.min_frames, plan.opt_frames, plan.max_frames) == (1, FRAMES, 8)


def test_dla_takes_one_size_and_fp16(bundle: Bundle) -> None:
    engines = build(bundle, dla=0)
    plan = engines.plans["mv_1"]
    assert (plan.precision, plan.min_frames, plan.max_frames) == ("fp16", FRAMES, FRAMES)
    assert engines.flags["dla"] == 0


def test_auto_on_the_cpu_for_real(tmp_path: Path) -> None:
    bundle = conv_bundle(tmp_path, segments={4: convolution(4, quantized=False)})
    engines = build(bundle, target=load_target("openvino"),
                    builder="edgepkd.engines.openvino:OpenVinoBuilder")
    for segment in SEGMENTS[:3]:
        plan = engines.plans[segment]
        assert plan.measured_ms is not None
        assert set(plan.measured_ms) == {"fp32", "int8"}
        assert plan.measured_ms[plan.precision] == min(plan.measured_ms.values())
        assert bool(plan.notes) == (plan.precision == "fp32")
        assert plan.min_frames == plan.max_frames == FRAMES
    float_plan = engines.plans["mv_4"]
    assert (float_plan.precision, float_plan.notes) == ("fp32", ("the segment is not quantised",))


def test_rtx_without_a_gpu_keeps_int8_unmeasured(tmp_path: Path) -> None:
    if hardware.has_gpu():
        pytest.skip("here is a GPU that can measure")
    bundle = conv_bundle(tmp_path)
    engines = build(bundle, target=load_target("tensorrt-rtx"),
                    builder="edgepkd.engines.tensorrt:open_tensorrt_rtx")
    for plan in engines.plans.values():
        assert (plan.precision, plan.measured_ms) == ("int8", None)
        assert plan.notes == ("int8 kept unmeasured: no NVIDIA GPU here",)


def test_a_killed_builder_names_the_segment_and_resume_goes_on(bundle: Bundle) -> None:
    script(bundle, mv_3="SIGKILL")
    with pytest.raises(ModelError) as caught:
        build(bundle, precision="fp16", workspace_mb=512)
    assert "mv_3: the builder was killed (SIGKILL), most likely because memory" in str(caught.value)
    assert "2 of 4 segments are built and kept" in str(caught.value)
    assert (f"edgepkd export {bundle.path} --target gpu --precision fp16 --workspace-mb 256"
            " --resume") in str(caught.value)
    assert engine_targets(bundle.path) == ()
    assert built(bundle) == ["mv_1 fp16 512", "mv_2 fp16 512"]
    script(bundle)
    build(bundle, precision="fp16", workspace_mb=256, resume=True)
    assert built(bundle) == ["mv_3 fp16 256", "mv_4 fp16 256"]
    assert not (bundle.path / "engines/.gpu.partial").exists()


@pytest.mark.parametrize(("act", "words"), [
    ("SIGSEGV", r"mv_2: the builder crashed \(SIGSEGV\); 1 of 4"),
    ("bug", r"mv_2: the builder crashed \(exit code 1\); .*It said last: ZeroDivisionError: a bug"),
    ("Error Code 10: no tactic", "mv_2: Error Code 10: no tactic"),
])
def test_whatever_goes_wrong_names_the_segment_and_leaves_the_old_engines(
    bundle: Bundle, act: str, words: str
) -> None:
    build(bundle, precision="fp16")
    before = {p: (bundle.path / p).read_bytes() for p in listing(bundle)}
    script(bundle, mv_2=act)
    with pytest.raises(ModelError, match=words):
        build(bundle, precision="fp32")
    assert {p: (bundle.path / p).read_bytes() for p in before} == before
    assert engine_targets(bundle.path) == ("gpu",)


def test_resume_builds_again_what_was_built_otherwise(bundle: Bundle) -> None:
    script(bundle, mv_4="SIGKILL")
    for precision, others in (("fp16", 3), ("fp32", 3), ("fp32", 0)):
        with pytest.raises(ModelError):
            build(bundle, precision=precision, resume=True)
        assert len(built(bundle)) == others
    damaged = bundle.path / "engines/.gpu.partial/mv_2.engine"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ModelError):
        build(bundle, precision="fp32", resume=True)
    assert built(bundle) == ["mv_2 fp32 None"]


def test_without_resume_a_build_starts_anew(bundle: Bundle) -> None:
    script(bundle, mv_2="SIGKILL")
    with pytest.raises(ModelError):
        build(bundle, precision="fp16")
    script(bundle)
    build(bundle, precision="fp16")
    assert [line.split()[0] for line in built(bundle)] == ["mv_1", *SEGMENTS]


@pytest.mark.parametrize("number", [
    pytest.param(signal.SIGINT, marks=pytest.mark.smoke), signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_child_and_no_engines(
    bundle: Bundle, number: signal.Signals
) -> None:
    script(bundle, mv_2="sleep")
    code = f"""
import signal, sys
from edgepkd.bundle.reading import read_bundle
from edgepkd.cli.main import _stop
from edgepkd.engines.build import build_engines
from edgepkd.engines.request import Request
from tests.engines.builds import GPU
signal.signal(signal.SIGTERM, _stop)
list(build_engines(Request(read_bundle({str(bundle.path)!r}), GPU), builder={SPEC!r}))
"""
    before = listing(bundle)
    pid_file = bundle.path.parent / "child.pid"
    with started([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as it:
        wait_for(lambda: pid_file.is_file() and pid_file.read_text() != "")
        child = int(pid_file.read_text())
        it.send_signal(number)
        assert it.wait(timeout=20) != 0
    wait_for(lambda: not running(child))
    assert {p for p in listing(bundle) if "/.gpu.partial/" not in p} == before


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_full_disk_is_a_storage_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bundle.path / "engines/.gpu.partial/mv_2.engine"
    real = os.fsync

    def full(descriptor: int) -> None:
        if "mv_2.engine" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=rf"{plan} cannot be written: No space left"):
        build(bundle, precision="fp16")
    assert engine_targets(bundle.path) == ()
    assert not list(plan.parent.glob("*mv_2*"))
    monkeypatch.undo()
    monkeypatch.setenv(FOLDER, str(bundle.path.parent))
    assert len(built(bundle)) == 2
    build(bundle, precision="fp16", resume=True)
    assert [line.split()[0] for line in built(bundle)] == list(SEGMENTS[1:])


def test_a_bundle_that_cannot_be_written_to_is_a_storage_error(bundle: Bundle) -> None:
    (bundle.path / "engines").write_text("a file where a folder must be")
    with pytest.raises(BundleError, match="engines is a file; allowed: a plain folder"):
        build(bundle, precision="fp16")


def test_export_and_check_need_no_torch(tmp_path: Path) -> None:
    bundle = conv_bundle(tmp_path, width=4)
    (tmp_path / "sitecustomize.py").write_text("""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "modelopt", "safetensors", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
""")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                              cwd=tmp_path, env=environment, timeout=120)

    assert "No module named 'torch'" in run("-c", "import torch").stderr
    for target in ("openvino", "tensorrt-rtx"):
        verb = ("-m", "edgepkd.cli.main", "export", str(bundle.path), "--target", target)
        assert run(*verb, "--precision", "int8").returncode == 0
    done = run("-m", "edgepkd.cli.main", "check", str(bundle.path))
    assert (done.returncode, done.stderr) == (
        0, f"next: edgepkd run VIDEO --model {bundle.path}\n")
    assert "openvino: ok" in done.stdout
    assert "tensorrt-rtx: ok" in done.stdout
