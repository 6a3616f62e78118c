"""One function per verb: settings in, results out. This is the Python API behind the CLI.

    >>> for event in run(RunConfig("clip.mp4")):
    ...     if isinstance(event, ClipDone):
    ...         print(event.answer.label, f"{event.answer.confidence:.2f}")
    no_fight 0...

What a device does is here. What makes a model is in modules of its own, which need more packages:
`pipeline.data`, `pipeline.train`, `pipeline.wise`, `pipeline.evaluate`.
"""

from edgepkd.pipeline.backend import BackendChosen, open_runner
from edgepkd.pipeline.device import (
    DEMO_BUNDLE,
    DEMO_FACTS,
    SHIPPED,
    BundleReport,
    ClipDone,
    DemoFacts,
    EnginesFound,
    RunConfig,
    RunEvent,
    RunSummary,
    SaveProgress,
    SourceFailed,
    SourcesSkipped,
    SourceStarted,
    SourceWarning,
    VideoReport,
    demo,
    demo_facts,
    doctor,
    inspect,
    load_bundle,
    open_session,
    run,
)
from edgepkd.video.limits import Limits

__all__ = [
    "DEMO_BUNDLE",
    "DEMO_FACTS",
    "SHIPPED",
    "BackendChosen",
    "BundleReport",
    "ClipDone",
    "DemoFacts",
    "EnginesFound",
    "Limits",
    "RunConfig",
    "RunEvent",
    "RunSummary",
    "SaveProgress",
    "SourceFailed",
    "SourceStarted",
    "SourceWarning",
    "SourcesSkipped",
    "VideoReport",
    "demo",
    "demo_facts",
    "doctor",
    "inspect",
    "load_bundle",
    "open_runner",
    "open_session",
    "run",
]
