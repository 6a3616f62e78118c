"""How a bundle answers, and how sources are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgepkd.cascade import ExitRule
from edgepkd.config import ClipSpec, Route, check, check_fps
from edgepkd.errors import UsageError
from edgepkd.video.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """How a bundle answers; None means: as the bundle says."""

    order: str | None = None
    """Modalities in the order they are asked, such as 'mv,residual,iframe'."""
    threshold: float | None = None
    """One confidence for all exits; 1.0: never exit early."""
    max_exit: int | None = None
    """Last cascade position that may run."""
    static: bool = False
    """Run every segment, no early exit."""
    exit_rule: ExitRule | None = None
    """Instead of the fitted policy or a threshold."""
    top_k: int = 3
    threads: int | None = None
    """Threads of the networks on the CPU; None: the backend's choice."""
    backend: str = "auto"
    """auto: engines in the bundle that fit this machine, those for a GPU first, else its ONNX files
    on the CPU. openvino: the CPU, with engines or without. Else the target whose engines it is."""
    trust_engines: bool = False
    """Also use engines that `edgepkd export` has not built here for this user: a plan is as good as
    code."""

    def __post_init__(self) -> None:
        from edgepkd.bundle.engines import is_target_name

        if self.static and not (self.threshold is None and self.max_exit is None):
            raise UsageError("static goes with threshold or max_exit; allowed: only one of them.",
                             hint="--static runs every segment: drop the other option.")
        if self.exit_rule is not None and (self.static or self.threshold is not None):
            raise UsageError("exit_rule goes with static or threshold; allowed: only one of them.",
                             hint="An own rule decides alone: drop the other argument.")
        limit = self.threshold
        check(limit is None or 0 <= limit <= 1, "threshold", got=limit,
              allowed="0..1 (1: never exit early)")
        for name in ("max_exit", "top_k", "threads"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, got=value, allowed="1 or more")
        check(is_target_name(self.backend), "backend", got=self.backend,
              allowed="auto, openvino or a folder in the bundle's engines/")

    def __str__(self) -> str:
        """The exit rule in words: 'policy', 'threshold 0.9', 'static', with 'max exit 4'."""
        if self.static:
            return "static"
        rule = ("own rule" if self.exit_rule is not None else
                "policy" if self.threshold is None else f"threshold {self.threshold:g}")
        return rule if self.max_exit is None else f"{rule}, max exit {self.max_exit}"


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How sources are read; None means: as the bundle says."""

    clips: int | None = None
    """At most so many clips of each source; None: all."""
    clip_frames: int | None = None
    stride_frames: int | None = None
    route: Route = "auto"
    fps: float | None = None
    """Frames per second of image sequences and of streams that name none; None: 25, or what
    the stream says."""
    limits: Limits = DEFAULT_LIMITS
    """How much a source may ask for."""

    def __post_init__(self) -> None:
        for name in ("clips", "clip_frames", "stride_frames"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, got=value, allowed="1 or more")
        check(self.route in ("auto", "native", "normalize"), "route", got=self.route,
              allowed="auto, native, normalize")
        check_fps(self.fps)

    def clip_spec(self, spec: ClipSpec) -> ClipSpec:
        """The bundle's clips, unless other ones are asked for; the stride follows the length."""
        frames = self.clip_frames or spec.clip_frames
        stride = self.stride_frames or (self.clip_frames or spec.stride_frames)
        return replace(spec, clip_frames=frames, stride_frames=stride)
