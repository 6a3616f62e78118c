"""The sidecar of engines: read back as written, and every mismatch has its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engines import (
    SIDECAR,
    BuiltOn,
    EngineSet,
    PlanRecord,
    engine_targets,
    engines_folder,
    library_version,
    mismatches,
    read_engines,
    rebuild_command,
    this_machine,
)
from edgepkd.errors import BundleError
from tests.runtime.bundles import make_bundle
from tests.stored_engines import store

ORIN = BuiltOn(library="tensorrt", library_version="10.3.0.30", os="linux", machine="aarch64",
               python="3.10.12", compute_capability="8.7", jetson="NVIDIA Jetson Orin Nano")
BUNDLE = Path("tiny.edgepkd")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_bundle(tmp_path_factory.mktemp("bundle")).manifest


@pytest.fixture
def engines(manifest: Any) -> EngineSet:
    plans = {}
    for entry in manifest.segments:
        name = f"{entry.modality}_{entry.exit}"
        plans[name] = PlanRecord(
            file=f"{name}.engine", sha256="0" * 64, bytes=7, source=entry.file,
            source_sha256=manifest.files[entry.file].sha256, precision="int8", min_frames=1,
            opt_frames=2, max_frames=2, build_s=1.5, measured_ms={"int8": 0.5, "fp16": 0.75},
            notes=("a note",))
    return EngineSet(target="jetson-orin-nano", built_on=ORIN, precision="auto", plans=plans,
                     flags={"dla": None, "compute_capabilities": []})


def test_round_trip(engines: EngineSet, tmp_path: Path) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert [path.name for path in folder.iterdir()] == [SIDECAR]
    assert read_engines(tmp_path, engines.target) == engines
    assert engine_targets(tmp_path) == ("jetson-orin-nano",)


def test_no_engines_says_what_there_is_and_how_to_build(
    engines: EngineSet, tmp_path: Path
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    with pytest.raises(BundleError, match=r"it has: jetson-orin-nano.*export .*--target openvino"):
        read_engines(tmp_path, "openvino")


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: v.update(schema_version=2), "schema_version 2; this edgepkd reads up to 1"),
    (lambda v: v.update(target="tensorrt"), "target is 'tensorrt'"),
    (lambda v: v["built_on"].update(library="tvm"), r"built_on\.library is 'tvm'"),
    (lambda v: v["plans"]["mv_1"].update(file="../mv_1.engine"), r"plans\.mv_1\.file"),
    (lambda v: v["plans"]["mv_1"].update(bytes="7"), r"plans\.mv_1\.bytes is '7'"),
    (lambda v: v["plans"]["mv_1"].update(measured_ms={"int8": "fast"}), "measured_ms.int8"),
    (lambda v: v.pop("plans"), "plans"),
    (lambda v: v.update(extra=1), "extra"),
])
def test_a_damaged_sidecar_is_refused_by_key(
    engines: EngineSet, tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    path = engines_folder(tmp_path, engines.target) / SIDECAR
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=message):
        read_engines(tmp_path, engines.target)


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


def test_this_machine_and_its_library() -> None:
    version = library_version("openvino")
    assert version is not None
    here = this_machine("openvino", version)
    assert (here.library, here.compute_capability) == ("openvino", None)
    assert here.instruction_sets
    assert this_machine("tensorrt", "10.3.0").instruction_sets is None
    assert version[0].isdigit()
