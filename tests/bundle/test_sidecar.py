"""The sidecar of engines: whatever is wrong with it is refused by its key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.engine_files import read_engines
from edgepkd.bundle.engines import SIDECAR, EngineSet, engines_folder
from edgepkd.errors import BundleError
from tests.stored_engines import store


@pytest.mark.slow
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
