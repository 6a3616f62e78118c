"""The sidecar of engines: read back as written, and every mismatch has its words."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle import trust
from edgepkd.bundle.engine_files import (
    damaged,
    engine_targets,
    read_engines,
    read_plan,
    read_timing_cache,
)
from edgepkd.bundle.engine_match import mismatches, rebuild_command, refuse_uncovered, this_machine
from edgepkd.bundle.engines import (
    SIDECAR,
    BuiltOn,
    EngineSet,
    PlanRecord,
    engines_folder,
    is_target_name,
)
from edgepkd.errors import BundleError
from edgepkd.libraries.versions import library_version
from tests.runtime.bundles import make_bundle
from tests.stored_engines import edit, store

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
    (lambda v: v.update(sidecar_sha256="0" * 64), "key sidecar_sha256"),
    (lambda v: plan(v).update(measured_ms={"int8": math.nan}), "measured_ms.int8 is nan"),
    (lambda v: plan(v).update(measured_ms={"int8": -1.0}), "measured_ms.int8 is -1"),
    (lambda v: plan(v).update(measured_ms={"int4": 1.0}), "measured_ms: a key is 'int4'"),
    (lambda v: plan(v).update(build_s=math.inf), "build_s is inf"),
    (lambda v: plan(v).update(build_s=10 ** 20), "build_s is 1000"),
    (lambda v: plan(v).update(max_frames=2 ** 62), "max_frames is .1, 2, 4611686018427387904"),
    (lambda v: plan(v).update(max_frames=10 ** 400), "max_frames is"),
    (lambda v: plan(v).update(max_frames=1025), "max_frames is .1, 2, 1025"),
    (lambda v: plan(v).update(min_frames=0), "min_frames, opt_frames, max_frames is .0, 2, 2"),
    (lambda v: plan(v).update(opt_frames=3), "min_frames, opt_frames, max_frames is .1, 3, 2"),
    (lambda v: plan(v).update(min_frames=True), "min_frames is True"),
    (lambda v: plan(v).update(bytes=0), "bytes is 0; allowed: 1"),
    (lambda v: plan(v).update(bytes=2 ** 40), "bytes is 1099511627776"),
    (lambda v: plan(v).update(sha256="0" * 63), "plans.mv_1.sha256 is '000"),
    (lambda v: plan(v).update(source_sha256="G" * 64), "plans.mv_1.source_sha256 is 'GGG"),
    (lambda v: plan(v).update(source="x" * 201), "plans.mv_1.source is 'xxx"),
    (lambda v: plan(v).update(notes=["x" * 1001]), "plans.mv_1.notes is 'xxx"),
    (lambda v: plan(v).update(notes=["x" * 10 ** 6]), "length is 1000000"),
    (lambda v: plan(v).update(notes=[""] * 21), "notes: number is 21"),
    (lambda v: plan(v).update(notes="a note"), "notes is 'a note'"),
    (lambda v: v["plans"].update({"../x": {**plan(v), "file": "../x.engine"}}), "a key of plans"),
    (lambda v: v["plans"].update({"mv_1/..": plan(v)}), "a key of plans is 'mv_1/..'"),
    (lambda v: v["built_on"].update(library_version="a.b"), "library_version is 'a.b'"),
    (lambda v: v["built_on"].update(library_version="10"), "library_version is '10'"),
    (lambda v: v["built_on"].update(library_version="9" * 50), "library_version is '999"),
    (lambda v: v["built_on"].update(library_version="\u0661.\u0662"), "library_version is"),
    (lambda v: v["built_on"].update(compute_capability="sm"), "compute_capability is 'sm'"),
    (lambda v: v["built_on"].update(gpu="x" * 201), "built_on.gpu is 'xxx"),
    (lambda v: v["built_on"].update(instruction_sets=["x"] * 101), "sets: number is 101"),
    (lambda v: v["built_on"].update(instruction_sets=["x" * 201]), "instruction_sets is 'xxx"),
    (lambda v: v["flags"].update(other=1), r"flags is \['other'\]"),
    (lambda v: v["flags"].update(dla="0"), "flags.dla is '0'"),
    (lambda v: v["flags"].update(dla=True), "flags.dla is True"),
    (lambda v: v["flags"].update(dla=-1), "flags.dla is -1"),
    (lambda v: v["flags"].update(workspace_mb=2 ** 40), "flags.workspace_mb is 1099511627776"),
    (lambda v: v["flags"].update(version_compatible=1), "flags.version_compatible is 1"),
    (lambda v: v["flags"].update(compute_capabilities=["a.b"]), "flags.compute_capabilities is"),
    (lambda v: v["flags"].update(compute_capabilities="8.7"), "compute_capabilities is '8.7'"),
    (lambda v: v["flags"].update(compute_capabilities={"8.7": 1}), "compute_capabilities is {"),
])
def test_a_damaged_sidecar_is_refused_by_key(
    engines: EngineSet, tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    path = engines_folder(tmp_path, engines.target) / SIDECAR
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=message) as caught:
        read_engines(tmp_path, engines.target)
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [
    b"", b"[]", b"{", b"[" * 10 ** 6, b'{"schema_version": 1e999}', b"\xff",
    b" " * (4 << 20) + b"{}", b'{"target": "a", "target": "b"}'])
def test_a_sidecar_that_is_none_is_one_error(tmp_path: Path, content: bytes) -> None:
    folder = engines_folder(tmp_path, "gpu")
    folder.mkdir(parents=True)
    (folder / SIDECAR).write_bytes(content)
    with pytest.raises(BundleError, match=r"engines\.json"):
        read_engines(tmp_path, "gpu")


def plan(values: Any) -> Any:
    return values["plans"]["mv_1"]


@pytest.mark.parametrize("target", ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\nb", "ä",
                                    "-rf", "x" * 65, "a\0"])
def test_names_that_are_no_target_are_refused(tmp_path: Path, target: str) -> None:
    assert not is_target_name(target)
    with pytest.raises(BundleError, match="target is"):
        read_engines(tmp_path, target)
    assert engine_targets(tmp_path) == ()


def test_only_folders_with_a_sidecar_are_targets_and_links_are_told(
    engines: EngineSet, tmp_path: Path
) -> None:
    store(engines_folder(tmp_path, engines.target), engines)
    folder = tmp_path / "engines"
    (folder / "README").write_text("a file")
    (folder / "empty").mkdir()
    (folder / ".jetson.partial").mkdir()
    (folder / ".jetson.partial" / SIDECAR).write_text("{}")
    (folder / "elsewhere").symlink_to(folder / engines.target)
    os.mkfifo(folder / "fifo")
    assert engine_targets(tmp_path) == ("elsewhere", "fifo", engines.target)
    for name, what in (("elsewhere", "a link"), ("fifo", "neither a file nor a folder")):
        with pytest.raises(BundleError, match=f"engines/{name} is {what}"):
            read_engines(tmp_path, name)


@pytest.mark.parametrize("name", ["engines", "engines/jetson-orin-nano",
                                  "engines/jetson-orin-nano/engines.json",
                                  "engines/jetson-orin-nano/mv_1.engine"])
def test_nothing_is_read_through_a_link(
    engines: EngineSet, manifest: Any, tmp_path: Path, name: str
) -> None:
    here = tmp_path / "here"
    folder = engines_folder(here, engines.target)
    content = b"a plan."
    plans = {name: replace(one, sha256=hashlib.sha256(content).hexdigest())
             for name, one in engines.plans.items()}
    store(folder, replace(engines, plans=plans))
    (folder / "mv_1.engine").write_bytes(content)
    assert read_plan(here, read_engines(here, engines.target), "mv_1") == content
    (here / name).rename(tmp_path / "moved")
    (here / name).symlink_to(tmp_path / "moved")
    with pytest.raises(BundleError, match=f"{name} is a link"):
        read_plan(here, read_engines(here, engines.target), "mv_1")


def test_a_plan_is_read_no_further_than_its_sidecar_says(
    engines: EngineSet, tmp_path: Path
) -> None:
    """A sparse file may say that it is as long as all memory."""
    store(engines_folder(tmp_path, engines.target), engines)
    with open(engines_folder(tmp_path, engines.target) / "mv_1.engine", "wb") as plan:
        plan.truncate(1 << 40)
    with pytest.raises(BundleError, match="has 1099511627776 bytes; its sidecar says 7"):
        read_plan(tmp_path, engines, "mv_1")
    assert damaged(tmp_path, engines)[0].startswith("mv_1.engine has 1099511627776 bytes")


def test_engines_are_covered_by_this_users_list_alone(
    engines: EngineSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert read_engines(tmp_path, engines.target).is_covered
    edit(folder, lambda values: plan(values).update(build_s=2.5), listed=False)
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


def test_a_timing_cache_is_one_that_is_listed_and_no_larger_than_one_is(
    engines: EngineSet, tmp_path: Path
) -> None:
    folder = engines_folder(tmp_path, engines.target)
    store(folder, engines)
    assert read_timing_cache(tmp_path, engines.target) == b""
    (folder / "timing.cache").write_bytes(b"tactics")
    assert read_timing_cache(tmp_path, engines.target) == b""
    trust.add(trust.digest_of(b"tactics"))
    assert read_timing_cache(tmp_path, engines.target) == b"tactics"
    with open(folder / "timing.cache", "wb") as cache:
        cache.truncate(1 << 40)
    assert read_timing_cache(tmp_path, engines.target) == b""


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
