"""`edgepkd check` on the command line: exit codes 0, 3 and 1, text and JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from edgepkd.engines.build import build_engines
from edgepkd.engines.request import Request
from edgepkd.engines.targets import load_target
from tests.cli.calling import invoke
from tests.engines.segments import conv_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = conv_bundle(tmp_path_factory.mktemp("check"), width=8)
    list(build_engines(Request(bundle, load_target("openvino"), precision="fp32")))
    return bundle.path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "conv.edgepkd"))


def check(*arguments: object) -> Result:
    return invoke("check", *arguments)


@pytest.mark.slow
def test_a_good_bundle(path: Path) -> None:
    done = check(path)
    assert done.exit_code == 0
    assert "whole, every SHA-256 is right\nopenvino: ok\n" in done.stdout


@pytest.mark.slow
def test_engines_of_another_version_exit_with_3_and_the_command(path: Path) -> None:
    sidecar = path / "engines/openvino/engines.json"
    values = json.loads(sidecar.read_text())
    values["built_on"]["library_version"] = "2024.4.0"
    sidecar.write_text(json.dumps(values))
    done = check(path)
    assert done.exit_code == 3
    assert "openvino: will rebuild\n  built with openvino 2024.4.0" in done.stdout
    assert f"next: edgepkd export {path} --target openvino --precision fp32\n" in done.stdout


@pytest.mark.slow
def test_a_damaged_bundle_exits_with_1_and_the_json_says_why(path: Path) -> None:
    segment = path / "segments/mv_2.onnx"
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    done = check(path, "--json", "-")
    assert done.exit_code == 1
    line = json.loads(done.stdout)
    assert (line["kind"], line["verdict"], line["targets"]) == ("check", "cannot", [])
    assert "mv_2.onnx has SHA-256" in line["reasons"][0]


def test_json_of_a_good_bundle(path: Path) -> None:
    line = json.loads(check(path, "--json", "-", "--target", "openvino").stdout)
    assert (line["verdict"], line["targets"][0]["target"]) == ("ok", "openvino")


def test_a_bundle_without_engines_is_ok(tmp_path: Path) -> None:
    done = check(conv_bundle(tmp_path, width=4).path)
    assert done.exit_code == 0
    assert "no engines in it" in done.stdout


def test_an_unknown_target_is_a_usage_error(path: Path) -> None:
    done = check(path, "--target", "toaster")
    assert done.exit_code == 2
    assert "'toaster'; allowed: jetson-agx-orin" in done.stderr


def test_help_says_the_exit_codes() -> None:
    text = " ".join(check("--help").stdout.split())
    assert "Exit code 0: they can. 3: they must be built again" in text
