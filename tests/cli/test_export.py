"""`edgepkd export` on the command line: the table, JSON, progress, and what is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import Result

from edgepkd.bundle.reading import Bundle
from edgepkd.engines.place import open_place
from tests.cli.calling import invoke
from tests.engines.segments import conv_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return conv_bundle(tmp_path_factory.mktemp("export"), width=8)


def export(*arguments: object) -> Result:
    return invoke("export", *arguments)


def test_a_table_on_stdout_and_progress_on_stderr(bundle: Bundle) -> None:
    done = export(bundle.path, "--target", "openvino", "--precision", "fp32", "--force")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ("[1/4] mv_1\n[2/4] mv_2\n[3/4] mv_3\n[4/4] mv_4\n"
                           f"next: edgepkd check {bundle.path}\n")
    assert "segment  precision  frames" in done.stdout
    assert "4 engines built" in done.stdout
    assert f"{bundle.path}/engines/openvino/" in done.stdout
    again = export(bundle.path, "--target", "openvino", "--precision", "fp32")
    assert again.stderr == f"next: edgepkd check {bundle.path}\n"
    assert "4 engines were up to date" in again.stdout


def test_json_has_a_line_for_each_segment_and_one_for_the_set(bundle: Bundle) -> None:
    done = export(bundle.path, "--target", "openvino", "--force", "--json", "-")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["segment"] * 4 + ["engines"]
    assert set(lines[0]["measured_ms"]) == {"fp32", "int8"}
    assert lines[-1]["plans"]["mv_1"]["sha256"] == lines[0]["sha256"]
    assert lines[-1]["built_on"]["library"] == "openvino"
    assert lines[-1]["is_covered"] is True


def test_where_nothing_can_be_noted_it_is_told_what_that_means(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    done = export(bundle.path, "--target", "openvino", "--precision", "fp32", "--json",
                  str(tmp_path / "lines.json"))
    assert done.exit_code == 0, done.stderr
    assert "note: this user has no private folder to note in" in done.stderr
    assert "--trust-engines" in done.stderr
    assert "4 engines built" in done.stdout
    line = json.loads((tmp_path / "lines.json").read_text().splitlines()[-1])
    assert line["is_covered"] is False


def test_a_second_export_says_what_it_waits_for(tmp_path: Path) -> None:
    path = conv_bundle(tmp_path, width=8).path
    opening = open_place(path, "openvino")
    with pytest.raises(StopIteration) as held:
        next(opening)
    threading.Timer(3.0, held.value.value.close).start()
    done = export(path, "--target", "openvino", "--precision", "fp32")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(
        "another export builds engines for openvino: waiting for it\n[1/4] mv_1\n")


def test_a_link_in_a_bundle_is_one_line(tmp_path: Path) -> None:
    path = conv_bundle(tmp_path, width=4).path
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.tex").write_text("precious")
    (path / "engines").mkdir()
    (path / "engines/.openvino.partial").symlink_to(tmp_path / "docs")
    done = export(path, "--target", "openvino")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"error: {path}/engines/.openvino.partial is a link; allowed: a plain folder.")
    assert (tmp_path / "docs" / "thesis.tex").read_text() == "precious"


def test_the_name_of_a_target_is_the_name_of_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    for number, name in enumerate(("../../out", "a b", ".hidden", "x" * 65, "a\\u001b]0;b")):
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(f'purpose = "A test."\nbuilder = "openvino"\nname = "{name}"\n')
        done = export(bundle.path, "--target", recipe)
        assert done.exit_code == 2
        assert "name of the target is" in done.stderr
        assert "\x1b" not in done.stderr


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--target", "toaster"), 2, "'toaster'; allowed: jetson-agx-orin"),
    (("--target", "openvino", "--precision", "int4"), 2, "precision is 'int4'"),
    (("--target", "openvino", "--precision", "fp16"), 2, "allowed: fp32, int8, auto"),
    (("--target", "openvino", "--batch", "0"), 2, "batch is 0; allowed: 3 or more"),
    (("--target", "openvino", "--batch", "8"), 2, "batch is 8; allowed: none here"),
    (("--target", "tensorrt-rtx", "--batch", "1025"), 2, "batch is 1025; allowed: up to 1024"),
    (("--target", "openvino", "--workspace-mb", "64"), 2, "only for TensorRT"),
    (("--target", "tensorrt-rtx", "--version-compatible"), 2, "not for tensorrt-rtx"),
    (("--target", "jetson-orin-nano", "--dla", "0"), 2, "built on the board itself"),
    (("--target", "onnx"), 2, "is the ONNX form itself"),
    (("--target", "openvino", "--out", "x.edgepkd", "--allow-drift"), 2,
     "--out, --allow-drift is given with a bundle"),
    (("--target", "openvino", "--via", "magic"), 2, "via is 'magic'"),
    (("--target", "openvino", "--via", "torch-tensorrt"), 2, "--via is given with a bundle"),
])
def test_what_is_refused(
    bundle: Bundle, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = export(bundle.path, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = conv_bundle(tmp_path, width=4).path
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 99}))
    done = export(path, "--target", "openvino")
    assert done.exit_code == 1
    assert "schema_version 99" in done.stderr
    assert not (path / "engines").exists()


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    done = export(tmp_path / "absent.edgepkd", "--target", "openvino")
    assert done.exit_code == 1
    assert "is not a bundle: no such folder" in done.stderr
