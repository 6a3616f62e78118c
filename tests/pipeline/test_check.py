"""`check` as a function: the worst of all engines, and a bundle that is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepkd.errors import ConfigError
from edgepkd.pipeline.check import check
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import add_openvino_engines


def test_a_bundle_without_engines_is_fine(tmp_path: Path) -> None:
    found = check(make_bundle(tmp_path).path)
    assert (found.verdict, found.reasons, found.targets) == ("ok", (), ())


@pytest.mark.slow
def test_the_worst_target_decides(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    sidecar = add_openvino_engines(bundle) / "engines.json"
    assert check(bundle.path).verdict == "ok"
    values = json.loads(sidecar.read_text())
    values["built_on"]["library_version"] = "2024.4.0"
    sidecar.write_text(json.dumps(values))
    found = check(bundle.path)
    assert [(one.target, one.verdict) for one in found.targets] == [("openvino", "will rebuild")]
    assert found.verdict == "will rebuild"


def test_a_bundle_that_is_not_whole_cannot_be_used(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path
    (path / "wise.json").unlink()
    found = check(path)
    assert (found.verdict, found.targets) == ("cannot", ())
    assert "wise.json" in found.reasons[0]
    assert "is not a bundle" in check(tmp_path / "absent").reasons[0]


def test_a_target_that_is_no_recipe_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'toaster'; allowed"):
        check(tmp_path / "absent", target="toaster")
