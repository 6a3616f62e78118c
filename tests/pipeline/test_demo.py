"""The verb demo: what ships, and what is said where nothing ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.errors import BundleError
from edgepkd.pipeline import demo
from edgepkd.runtime.model import load_bundle


def test_demo_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SHIPPED", tmp_path)
    monkeypatch.setattr(demo, "DEMO_FACTS", tmp_path / "demo.json")
    with pytest.raises(BundleError, match="ships no demo"):
        demo.demo_facts()
    (tmp_path / "demo.json").write_text('{"clip": "a.mp4", "expected_label": "run"}')
    with pytest.raises(BundleError, match="attribution"):
        demo.demo_facts()
    (tmp_path / "demo.json").write_text(
        '{"clip": "a.mp4", "expected_label": "run", "attribution": "A. Person, CC BY 4.0"}')
    assert demo.demo_facts() == demo.DemoFacts(
        tmp_path / "a.mp4", "run", "A. Person, CC BY 4.0")


def test_no_shipped_model_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgepkd.runtime.model.DEMO_BUNDLE", tmp_path / "demo.edgepkd")
    with pytest.raises(BundleError, match="ships no model"):
        load_bundle(None)
