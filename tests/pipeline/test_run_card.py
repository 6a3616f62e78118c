"""The model card of a run: labels and notes stand in it as text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgepkd.deploy.gate import Parity
from edgepkd.pipeline import run_card


def test_labels_and_notes_are_text_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_card, "format_report", lambda report: "| table |")
    recipe = SimpleNamespace(purpose="To *test*.", terms="")
    record = SimpleNamespace(recipe=recipe, labels=("a|b`c", "no_fight", "x\n# y\x1b"), seed=0)
    facts: Any = SimpleNamespace(
        name="[x](y)\n", run=SimpleNamespace(record=record, networks={}), quantization=None,
        parity=Parity(()), report=SimpleNamespace(cascade=SimpleNamespace(num_clips=3)),
        of="clips", notes=("<b>\n- forged",))
    lines = run_card.run_card(facts).splitlines()
    assert lines[0] == r"# \[x\](y)\\n"
    assert lines[2] == "To *test*."
    assert r"a\|b\`c, no_fight, x\\n# y\\x1b" in lines
    assert r"- \<b\>\\n- forged" in lines
