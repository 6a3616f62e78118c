"""The verb `demo`: the shipped bundle on the shipped clip."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from edgepkd import plain_json
from edgepkd.errors import BundleError
from edgepkd.pipeline.run import RunConfig, RunEvent, run
from edgepkd.runtime.model import SHIPPED

DEMO_FACTS = SHIPPED / "demo.json"


@dataclass(frozen=True)
class DemoFacts:
    """The shipped clip: where it is, what is seen in it, and whose it is."""

    clip: Path
    expected_label: str
    attribution: str


def demo_facts() -> DemoFacts:
    """What `_bundles/demo.json` says.

    Raises:
        BundleError: this installation ships no demo, or a damaged one.
    """
    try:
        values = plain_json.loads(DEMO_FACTS.read_text(encoding="utf-8"))
        return DemoFacts(clip=SHIPPED / values["clip"], expected_label=values["expected_label"],
                         attribution=values["attribution"])
    except FileNotFoundError as error:
        raise BundleError("this installation ships no demo.",
                          hint="Run an own one: edgepkd run VIDEO --model NAME.edgepkd") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{DEMO_FACTS} is damaged: {error!r}.",
                          hint="Install again: pip install --force-reinstall edgepkd") from error


def demo(config: RunConfig | None = None) -> Generator[RunEvent, None, None]:
    """Run the shipped bundle on the shipped clip; `demo_facts` says what should come out.

    `config` has the other settings: its source and model do not count.

    Raises:
        BundleError: as `demo_facts` and `load_bundle`. Others as `run`.
    """
    clip = str(demo_facts().clip)
    return run(RunConfig(clip) if config is None else replace(config, source=clip, model=None))
