"""The model card of a demo bundle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edgepkd.studies.demo import card


def test_a_label_cannot_break_out_of_its_cell() -> None:
    report: Any = SimpleNamespace(per_label={"a|b\n": "50 %", "no_fight": "70 %"})
    assert card._per_label(report).splitlines()[2:] == [r"| a\|b\\n | 50 % |",
                                                        "| no_fight | 70 % |"]
