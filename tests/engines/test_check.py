"""check: good and broken bundles get a verdict, all reasons, and the command that helps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.reading import read_bundle
from edgepkd.engines import check as module
from edgepkd.engines.build import build_engines
from edgepkd.engines.check import check_targets
from edgepkd.engines.request import Request
from edgepkd.engines.targets import load_target
from edgepkd.errors import ConfigError
from edgepkd.machine import hardware
from tests import stored_engines
from tests.engines.segments import conv_bundle

OPENVINO = load_target("openvino")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with real engines for the CPU."""
    bundle = conv_bundle(tmp_path_factory.mktemp("check"), width=8)
    list(build_engines(Request(bundle, OPENVINO, precision="int8")))
    return bundle.path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(pristine, tmp_path / "conv.edgepkd"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    stored_engines.edit(path / "engines/openvino", change)


@pytest.mark.slow
def test_a_good_bundle_is_ok(path: Path) -> None:
    (found,) = check_targets(read_bundle(path), None)
    assert (found.target, found.verdict, found.reasons, found.command) == (
        "openvino", "ok", (), None)
    assert found.notes == ("INT8 possible: 4 of 4 segments are quantised",)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "reason"), [
    (lambda v: v["built_on"].update(library_version="2024.4.0"),
     "built with openvino 2024.4.0, here is"),
    (lambda v: v["built_on"].update(os="windows"), "built on system windows"),
    (lambda v: v["plans"]["mv_2"].update(source_sha256="0" * 64), "mv_2 was built from another"),
    (lambda v: v["plans"].pop("mv_3"), "mv_3 has no engine"),
    (lambda v: v["built_on"]["instruction_sets"].append("sve9"), "another kind of CPU, with sve9"),
    (lambda v: v.update(schema_version=9), "schema_version 9; this edgepkd reads up to 1"),
])
def test_stale_engines_will_be_rebuilt_by_the_command_given(
    path: Path, change: Callable[[Any], object], reason: str
) -> None:
    edit(path, change)
    (found,) = check_targets(read_bundle(path), None)
    assert found.verdict == "will rebuild"
    assert any(reason in given for given in found.reasons), found.reasons
    assert found.command is not None
    assert found.command.startswith(f"edgepkd export {path} --target openvino")


@pytest.mark.slow
def test_engines_from_elsewhere_will_be_rebuilt(path: Path) -> None:
    sidecar = path / "engines/openvino/engines.json"
    sidecar.write_bytes(sidecar.read_bytes() + b"\n")
    (found,) = check_targets(read_bundle(path), None)
    assert (found.verdict, found.reasons) == ("will rebuild", ("were not built here by this user",))
    assert "only with --trust-engines" in found.notes[-1]
    assert found.command == f"edgepkd export {path} --target openvino --precision int8"


def test_damaged_and_missing_plans_are_all_named(path: Path) -> None:
    (path / "engines/openvino/mv_1.engine").write_bytes(b"damaged")
    (path / "engines/openvino/mv_2.engine").unlink()
    (found,) = check_targets(read_bundle(path), None)
    assert [reason[:25] for reason in found.reasons] == ["mv_1.engine has 7 bytes; "[:25],
                                                         "mv_2.engine is missing"]
    assert found.command == f"edgepkd export {path} --target openvino --precision int8"


def test_int8_engines_on_a_cpu_that_overflows_cannot_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(path)
    segments = tuple(replace(s, precision="int8", weight_bits=8)
                     for s in bundle.manifest.segments)
    bundle = replace(bundle, manifest=replace(bundle.manifest, segments=segments))
    monkeypatch.setattr(hardware, "overflows_bytes", lambda: True)
    edit(path, lambda v: v["plans"]["mv_1"].update(precision="fp32"))
    (found,) = check_targets(bundle, None)
    assert found.verdict == "cannot"
    assert [reason.split()[0] for reason in found.reasons] == ["mv_2", "mv_3", "mv_4"]


def test_engines_that_are_not_there_yet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "jetson", lambda: None)
    (found,) = check_targets(read_bundle(path), "jetson-orin-nano")
    assert (found.verdict, found.reasons) == ("will rebuild", ("it has no engines yet",))
    assert "built on the board itself" in found.notes[-1]


@pytest.mark.parametrize(("version", "reason"), [
    (None, "tensorrt is not installed here"), ("9.2.0", "tensorrt is 9.2.0 here")])
def test_without_a_builder_that_fits_it_cannot_be_built(
    path: Path, version: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "library_version", lambda library: version)
    (found,) = check_targets(read_bundle(path), "tensorrt")
    assert found.verdict == "cannot"
    assert found.reasons[0].startswith(reason)


def test_int8_on_the_dla_and_a_dla_of_the_wrong_version_cannot_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_orin(values: dict[str, Any]) -> None:
        values["target"] = "jetson-agx-orin"
        values["flags"]["dla"] = 0

    edit(path, to_orin)
    (path / "engines/openvino").rename(path / "engines/jetson-agx-orin")
    monkeypatch.setattr(module, "library_version", lambda library: "10.13.0")
    (found,) = check_targets(read_bundle(path), None)
    assert found.verdict == "cannot"
    assert "mv_1, mv_2, mv_3, mv_4 in int8 on the DLA is known to answer wrongly" in found.reasons
    assert "DLA core 0 of jetson-agx-orin: not with tensorrt 10.13.0" in found.reasons


def test_engines_of_an_unknown_target_cannot_be_judged(path: Path) -> None:
    (path / "engines/openvino").rename(path / "engines/toaster")
    (found,) = check_targets(read_bundle(path), None)
    assert found.verdict == "cannot"
    assert "'toaster'; allowed" in found.reasons[0]
    with pytest.raises(ConfigError, match="'toaster'; allowed"):
        check_targets(read_bundle(path), "toaster")


def test_the_onnx_form_is_always_there(path: Path) -> None:
    (found,) = check_targets(read_bundle(path), "onnx")
    assert found.verdict == "ok"
