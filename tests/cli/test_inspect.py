"""`edgepkd inspect`: bundles, engines and videos, as tables and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.libraries import openvino
from tests import stored_engines
from tests.cli.calling import invoke, lines
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import add_openvino_engines


def test_inspect_bundle(bundle: Bundle) -> None:
    shown = invoke("inspect", bundle.path)
    assert shown.exit_code == 0
    for part in ("left, right", "15 files", "every SHA-256 is right", "segments/residual_2.onnx",
                 "mv,residual,iframe", "0.0600"):
        assert part in shown.stdout
    (line,) = lines(invoke("inspect", bundle.path, "--json", "-").stdout)
    assert (line["kind"], line["schema_version"], line["manifest_schema_version"]) == (
        "bundle", 1, 2)


@pytest.mark.slow
def test_inspect_says_whose_engines_there_are(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    folder = add_openvino_engines(bundle)
    version = openvino.version()
    assert f"12 plans, openvino {version}, built here by this user" in invoke(
        "inspect", bundle.path).stdout
    stored_engines.edit(folder, lambda values: values.update(precision="auto"), listed=False)
    assert f"12 plans, openvino {version}, not built here by this user: run uses them only" in \
        invoke("inspect", bundle.path).stdout
    (folder / "engines.json").write_text('{"schema_version": 1}')
    (line,) = lines(invoke("inspect", bundle.path, "--json", "-").stdout)
    (found,) = line["engines"]
    assert (found["target"], found["is_covered"], found["num_plans"]) == ("openvino", False, None)
    assert found["error"].startswith("engines.json: key target, built_on, precision, plans is")


def test_inspect_tampered_bundle(bundle: Bundle, tmp_path: Path) -> None:
    broken = make_bundle(tmp_path)
    (broken.path / "wise.json").write_text("{}")
    shown = invoke("inspect", broken.path)
    assert shown.exit_code == 1
    assert "wise.json has 2 bytes" in shown.stderr


@pytest.mark.smoke
def test_inspect_videos(clips: Path) -> None:
    shown = invoke("inspect", clips / "right.mp4")
    for part in ("mpeg4", "160x96", "25 fps", "12 frames", "native: mpeg4 exports"):
        assert part in shown.stdout
    got = lines(invoke("inspect", clips, "--json", "-").stdout)
    assert [line["verdict"]["route"] for line in got] == ["native", "native"]
    assert {line["kind"] for line in got} == {"video"}


def test_inspect_goes_on_after_a_bad_file(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no")
    (tmp_path / "b.mp4").symlink_to(clips / "right.mp4")
    shown = invoke("inspect", tmp_path)
    assert shown.exit_code == 1
    assert "a.mp4" in shown.stderr
    assert "native" in shown.stdout
