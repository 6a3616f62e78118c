"""A clip's answer, and the JSON line that is made of it."""

from __future__ import annotations

import json

import pytest

from edgepkd.runtime.answers import DecodeCounts
from edgepkd.video.decoder import DecodeCounters
from tests.runtime.clip_answers import answer_at


def test_a_json_line_says_all_of_it_in_plain_values() -> None:
    line = answer_at(5, start_s=1 / 3, nets_ms=1.23456).as_json()
    assert json.loads(json.dumps(line)) == line
    assert (line["clip"], line["start_s"], line["label"]) == (0, 0.333333, "right")
    assert line["top_k"] == [{"label": "right", "confidence": 0.75},
                             {"label": "left", "confidence": 0.25}]
    assert line["exit"] == {"network": "residual", "exit": 1, "position": 5, "of": 12}
    assert line["ms"] == {"read": 1.0, "decode": 2.0, "load": 3.0, "nets": 1.235, "decision": 0.5}
    assert line["segments_run"] == ["mv_1", "mv_2", "mv_3", "mv_4", "residual_1"]
    assert len(line["segments_skipped"]) == 7
    assert (line["gmac"], line["gmac_static"]) == (1.25, 3.0)
    assert line["decode"]["packets_skipped"] == 7


@pytest.mark.parametrize(("number", "skipped"), [
    (1, ("residual", "iframe")), (4, ("residual", "iframe")), (5, ("iframe",)), (12, ())])
def test_a_modality_is_skipped_where_none_of_its_segments_ran(
    number: int, skipped: tuple[str, ...]
) -> None:
    assert answer_at(number).modalities_skipped == skipped


def test_counts_are_a_copy_of_what_a_decoder_counts() -> None:
    running = DecodeCounters()
    running.packets_read, running.residuals, running.errors = 9, 2, 1
    counts = DecodeCounts.of(running)
    running.packets_read = 100
    assert counts == DecodeCounts(packets_read=9, residuals=2, errors=1)
