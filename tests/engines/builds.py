"""Builds of whole bundles by the builder of the tests, and what they leave."""

from __future__ import annotations

import json
from typing import Any

from edgepkd.bundle.engines import EngineSet
from edgepkd.bundle.reading import Bundle
from edgepkd.engines.build import EnginesBuilt, SegmentBuilt, build_engines
from edgepkd.engines.request import Request
from edgepkd.engines.targets import Target
from tests.engines.builders import SPEC

GPU = Target(purpose="A test.", name="gpu", builder="tensorrt", portable=True, dla_cores=1,
             dla_versions=(">=10.3,<10.8",))
SEGMENTS = ("mv_1", "mv_2", "mv_3", "mv_4")


def script(bundle: Bundle, **acts: Any) -> None:
    (bundle.path.parent / "script.json").write_text(json.dumps(acts))


def built(bundle: Bundle) -> list[str]:
    """Lines that the builder logged, and forget them."""
    log = bundle.path.parent / "built.txt"
    lines = log.read_text().splitlines() if log.is_file() else []
    log.unlink(missing_ok=True)
    return lines


def build(bundle: Bundle, *, target: Target = GPU, builder: str = SPEC, resume: bool = False,
          force: bool = False, **settings: Any) -> EngineSet:
    *events, last = build_engines(Request(bundle, target, **settings), resume=resume, force=force,
                                  builder=builder)
    assert isinstance(last, EnginesBuilt)
    assert [e.segment for e in events if isinstance(e, SegmentBuilt)] == (
        [] if last.up_to_date else list(SEGMENTS))
    return last.engines


def listing(bundle: Bundle) -> set[str]:
    return {p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if p.is_file()}
