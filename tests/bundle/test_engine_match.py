"""Whether engines may be used here: every mismatch has its words, and who built them counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engine_files import read_engines
from edgepkd.bundle.engine_match import mismatches, rebuild_command, refuse_uncovered, this_machine
from edgepkd.bundle.engines import EngineSet, engines_folder
from edgepkd.errors import BundleError
from edgepkd.libraries.versions import library_version
from tests.bundle.orin import ORIN
from tests.stored_engines import edit, store

BUNDLE = Path("tiny.edgepkd")


def test_engines_are_covered_by_this_users_list_alone(
    engines: EngineSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert read_engines(tmp_path, engines.target).is_covered
    edit(folder, lambda values: values["plans"]["mv_1"].update(build_s=2.5), listed=False)
    found = read_engines(tmp_path, engines.target)
    assert not found.is_covered
    with pytest.raises(BundleError, match="were not built here by this user") as caught:
        refuse_uncovered(tmp_path, found, trusted=False)
    assert "--trust-engines" in str(caught.value.hint)
    assert f"edgepkd export {tmp_path} --target jetson-orin-nano" in str(caught.value.hint)
    refuse_uncovered(tmp_path, found, trusted=True)
    store(folder, engines)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    assert not read_engines(tmp_path, engines.target).is_covered


def test_the_machine_that_built_them_may_load_them(engines: EngineSet, manifest: Any) -> None:
    other_python = replace(ORIN, python="3.12.3", driver="580.1")
    assert mismatches(engines, manifest, other_python) == ()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"library": "tensorrt_rtx"}, "built with tensorrt, here is tensorrt_rtx"),
    ({"library_version": "10.3.0.31"}, "built with tensorrt 10.3.0.30, here is 10.3.0.31"),
    ({"os": "windows"}, "built on system linux, here is windows"),
    ({"machine": "x86_64"}, "built on machine aarch64, here is x86_64"),
    ({"compute_capability": "8.9"}, "built for compute capability 8.7, here is 8.9"),
    ({"compute_capability": None}, "no NVIDIA GPU is seen here"),
])
def test_each_mismatch_is_named(
    engines: EngineSet, manifest: Any, changes: dict[str, Any], reason: str
) -> None:
    assert mismatches(engines, manifest, replace(ORIN, **changes)) == (reason,)


def test_all_mismatches_are_named_at_once(engines: EngineSet, manifest: Any) -> None:
    here = replace(ORIN, library_version="11.4.1", machine="x86_64", compute_capability="9.0")
    assert len(mismatches(engines, manifest, here)) == 3


@pytest.mark.parametrize(("version", "fits"), [
    ("10.3.0.30", True), ("10.13.2", True), ("10.2.9", False), ("11.4.1", False)])
def test_version_compatible_plans_load_in_newer_versions(
    engines: EngineSet, manifest: Any, version: str, fits: bool
) -> None:
    compatible = replace(engines, flags={"version_compatible": True})
    here = replace(ORIN, library_version=version)
    assert (mismatches(compatible, manifest, here) == ()) == fits


@pytest.mark.parametrize("version", ["none", "", "rc.1", "10"])
def test_a_version_that_is_no_number_fits_nothing(
    engines: EngineSet, manifest: Any, version: str
) -> None:
    compatible = replace(engines, flags={"version_compatible": True})
    reasons = mismatches(compatible, manifest, replace(ORIN, library_version=version))
    assert reasons == (f"built with tensorrt 10.3.0.30, here is {version}",)


@pytest.mark.parametrize(("flags", "capability", "fits"), [
    ({"hardware_compatible": True}, "12.0", True), ({"hardware_compatible": True}, "7.5", False),
    ({"compute_capabilities": ["8.6", "8.9"]}, "8.9", True),
    ({"compute_capabilities": ["8.6", "8.9"]}, "8.7", False),
])
def test_plans_for_several_gpus(
    engines: EngineSet, manifest: Any, flags: dict[str, Any], capability: str, fits: bool
) -> None:
    here = replace(ORIN, compute_capability=capability)
    assert (mismatches(replace(engines, flags=flags), manifest, here) == ()) == fits


def test_rtx_plans_built_without_a_gpu_load_from_ampere_on(
    engines: EngineSet, manifest: Any
) -> None:
    rtx = replace(ORIN, library="tensorrt_rtx", compute_capability=None)
    built = replace(engines, built_on=rtx)
    assert mismatches(built, manifest, replace(rtx, compute_capability="8.9")) == ()
    assert mismatches(built, manifest, replace(rtx, compute_capability="7.5")) == (
        "built for compute capability 8.0 and newer, here is 7.5",)


def test_plans_for_the_cpu_belong_to_its_kind(engines: EngineSet, manifest: Any) -> None:
    there = replace(ORIN, library="openvino", compute_capability=None,
                    instruction_sets=("avx2", "avx512_vnni"))
    built = replace(engines, built_on=there)
    assert mismatches(built, manifest, there) == ()
    here = replace(there, instruction_sets=("amx_int8", "avx2", "avx_vnni"))
    assert mismatches(built, manifest, here) == (
        "built on another kind of CPU, with avx512_vnni and without amx_int8, avx_vnni",)
    unknown = replace(built, built_on=replace(there, instruction_sets=None))
    assert mismatches(unknown, manifest, here) == (
        "built on a CPU that the sidecar does not describe",)


def test_plans_that_do_not_take_a_clip_are_named(engines: EngineSet, manifest: Any) -> None:
    plans = {**engines.plans, "mv_1": replace(engines.plans["mv_1"], max_frames=1)}
    assert mismatches(replace(engines, plans=plans), manifest, ORIN) == (
        "mv_1 takes 1 to 1 frames, a clip has 2",)


def test_plans_of_another_segment_are_named(engines: EngineSet, manifest: Any) -> None:
    plans = dict(engines.plans)
    del plans["mv_1"]
    plans["mv_2"] = replace(plans["mv_2"], source_sha256="f" * 64)
    reasons = mismatches(replace(engines, plans=plans), manifest, ORIN)
    assert reasons == ("mv_1 has no engine", "mv_2 was built from another segments/mv_2.onnx"
                       " (SHA-256 ffffffffffff…)")


def test_the_rebuild_command_asks_for_the_same(engines: EngineSet) -> None:
    assert rebuild_command(BUNDLE, engines) == (
        "edgepkd export tiny.edgepkd --target jetson-orin-nano --precision auto")
    plans = {k: replace(p, max_frames=16) for k, p in engines.plans.items()}
    flags = {"dla": 1, "version_compatible": True, "hardware_compatible": True}
    changed = replace(engines, plans=plans, flags=flags, via="torch-tensorrt")
    assert rebuild_command(Path("my bundle.edgepkd"), changed) == (
        "edgepkd export 'my bundle.edgepkd' --target jetson-orin-nano --precision auto"
        " --version-compatible --hardware-compatible --dla 1 --batch 16")
    assert rebuild_command(Path("-a;b"), engines).startswith("edgepkd export './-a;b' --target")


def test_this_machine_and_its_library() -> None:
    version = library_version("openvino")
    assert version is not None
    here = this_machine("openvino", version)
    assert (here.library, here.compute_capability) == ("openvino", None)
    assert here.instruction_sets
    assert this_machine("tensorrt", "10.3.0").instruction_sets is None
    assert version[0].isdigit()
