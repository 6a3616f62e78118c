"""What ships: the demo is right, and the model card's accuracy is what comes out."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle, read_bundle
from edgepkd.pipeline import demo
from edgepkd.pipeline import run as pipeline
from edgepkd.pipeline.run import ClipDone, RunConfig, RunSummary
from edgepkd.runtime.model import DEMO_BUNDLE
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.session import Session
from edgepkd.video.clips import ClipReader

pytestmark = pytest.mark.slow

WHOLE_FILE = 1_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DEMO_BUNDLE)


@pytest.mark.smoke
def test_the_demo_is_right_and_skips_work() -> None:
    events = list(demo.demo())
    labels = [event.answer.label for event in events if isinstance(event, ClipDone)]
    assert labels == [demo.demo_facts().expected_label] * 3
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    assert summary.segments_skipped > 0
    assert summary.packets_skipped > 0


def test_the_bundle_has_twelve_segments_and_weights_for_every_order(bundle: Bundle) -> None:
    assert len(bundle.manifest.segments) == 12
    assert len(bundle.wise) == len(bundle.policy) == 15


def test_every_other_order_answers_too(bundle: Bundle) -> None:
    clip = str(demo.demo_facts().clip)
    for order in ("residual,mv,iframe", "iframe", "iframe,mv"):
        events = list(pipeline.run(RunConfig(clip, order=order, clips=1, threads=1)))
        assert [type(event) for event in events].count(ClipDone) == 1, order


def test_real_test_clips_are_answered_as_well_as_the_card_says(
    shared_data: Path, bundle: Bundle
) -> None:
    recipe = bundle.manifest.provenance["recipe"]
    with (shared_data / recipe["index"]).open(newline="") as rows:
        clips = [row for row in csv.DictReader(rows) if row["split"] == "test"]
    session = Session(bundle, OpenVinoRunner(bundle, threads=1))
    whole = replace(bundle.manifest.clip, clip_frames=WHOLE_FILE, stride_frames=WHOLE_FILE)
    right = 0
    for row in clips:
        with ClipReader(str(shared_data / "fights" / row["path"]), clip=whole, route="normalize",
                        inputs=bundle.manifest.inputs, decode=bundle.manifest.decode) as reader:
            (answer,) = session.stream(reader)
        right += answer.label == row["label"]
    claimed = bundle.manifest.provenance["test"]
    assert claimed["num_clips"] == len(clips) == 60
    # two clips of slack: another processor rounds pixels and INT8 sums otherwise
    assert abs(right / len(clips) - claimed["cascade_accuracy"]) <= 2.01 / len(clips)
