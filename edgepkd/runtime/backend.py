"""Which runner computes the segments of a bundle on this machine, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgepkd.errors import BundleError, EdgepkdError

if TYPE_CHECKING:
    from edgepkd.bundle.engines import EngineSet
    from edgepkd.bundle.reading import Bundle
    from edgepkd.runtime.runner import SegmentRunner

CPU = "openvino"
FITS = "its engines were built for this machine."
ONNX_INSTEAD = "The ONNX files of the bundle are compiled for the CPU instead."


class BackendSettings(Protocol):
    """What a `RunConfig` says of the backend."""

    @property
    def backend(self) -> str:
        """A target, openvino, or auto."""
        ...

    @property
    def threads(self) -> int | None:
        """Of OpenVINO; None: it chooses."""
        ...

    @property
    def trust_engines(self) -> bool:
        """True: engines that were not built here are taken, too."""
        ...


@dataclass(frozen=True)
class BackendChosen:
    """The bundle has engines that might be used, and they are or are not."""

    backend: str
    """A target, or openvino."""
    reason: str


def open_runner(
    bundle: Bundle, config: BackendSettings
) -> tuple[SegmentRunner, BackendChosen | None]:
    """The backend of `config`; where there was a choice, also what was chosen and why.

    `auto` and `openvino` do without engines that do not fit or were not built here by this user,
    `auto` also without damaged ones.

    Raises:
        BundleError: the bundle has no engines for the target asked for, they do not fit here, were
            not built here by this user (unless `trust_engines`), or those for openvino, which was
            asked for, are damaged.
        MissingExtraError: what runs them is not installed. ModelError: CUDA does not work.
    """
    from edgepkd.bundle.engine_files import read_engines

    if config.backend == "auto":
        return _first_that_fits(bundle, config)
    if config.backend == CPU:
        return _on_the_cpu(bundle, config)
    return _on_engines(bundle, read_engines(bundle.path, config.backend), config), None


def _first_that_fits(
    bundle: Bundle, config: BackendSettings
) -> tuple[SegmentRunner, BackendChosen | None]:
    sets, unreadable = _engine_sets(bundle)
    refused = [error.message for error in unreadable.values()]
    for engines in sets:
        try:
            runner = _on_engines(bundle, engines, config)
            with _closed_on_errors(runner):
                _refuse_damaged(bundle, engines)
                if engines.built_on.library == CPU:
                    _try_first_segment(bundle, runner)
        except EdgepkdError as error:
            refused.append(_told(error, engines))
        else:
            return runner, BackendChosen(engines.target, " ".join([*refused, FITS]))
    return _on_onnx(bundle, config, refused)


def _on_the_cpu(
    bundle: Bundle, config: BackendSettings
) -> tuple[SegmentRunner, BackendChosen | None]:
    sets, unreadable = _engine_sets(bundle)
    if CPU in unreadable:
        raise unreadable[CPU]
    refused: list[str] = []
    for engines in sets:
        if engines.built_on.library != CPU:
            continue
        try:
            runner = _on_engines(bundle, engines, config)
        except BundleError as error:
            refused.append(_told(error, engines))
            continue
        with _closed_on_errors(runner):
            _refuse_damaged(bundle, engines)
        return runner, BackendChosen(engines.target, FITS)
    return _on_onnx(bundle, config, refused)


def _told(error: EdgepkdError, engines: EngineSet) -> str:
    """Why engines are not used, and what to do about those that were not built here."""
    return error.message if engines.is_covered else str(error)


@contextmanager
def _closed_on_errors(runner: SegmentRunner) -> Iterator[None]:
    try:
        yield
    except BaseException:
        runner.close()
        raise


def _on_onnx(
    bundle: Bundle, config: BackendSettings, refused: list[str]
) -> tuple[SegmentRunner, BackendChosen | None]:
    from edgepkd.runtime.openvino_runner import OpenVinoRunner

    choice = BackendChosen(CPU, " ".join([*refused, ONNX_INSTEAD])) if refused else None
    return OpenVinoRunner(bundle, threads=config.threads), choice


def _on_engines(bundle: Bundle, engines: EngineSet, config: BackendSettings) -> SegmentRunner:
    from edgepkd.runtime.openvino_runner import OpenVinoRunner
    from edgepkd.runtime.tensorrt_runner import TensorRtRunner

    if engines.built_on.library == CPU:
        return OpenVinoRunner(bundle, target=engines.target, threads=config.threads,
                              trust_engines=config.trust_engines)
    return TensorRtRunner(bundle, engines.target, trust_engines=config.trust_engines)


def _engine_sets(bundle: Bundle) -> tuple[list[EngineSet], dict[str, BundleError]]:
    """What the bundle has engines for, GPUs first; and targets whose sidecar cannot be read."""
    from edgepkd.bundle.engine_files import engine_targets, read_engines

    sets: list[EngineSet] = []
    unreadable: dict[str, BundleError] = {}
    for target in engine_targets(bundle.path):
        try:
            sets.append(read_engines(bundle.path, target))
        except BundleError as error:
            unreadable[target] = error
    return sorted(sets, key=lambda engines: engines.built_on.library == CPU), unreadable


def _refuse_damaged(bundle: Bundle, engines: EngineSet) -> None:
    """Look at all plans before the first is needed.

    Raises:
        BundleError: names those that are missing or not what the sidecar says.
    """
    from edgepkd.bundle.engine_files import damaged
    from edgepkd.bundle.engine_match import rebuild_hint

    if reasons := damaged(bundle.path, engines):
        raise BundleError(f"the engines for {engines.target!r} are damaged: {'; '.join(reasons)}.",
                          hint=rebuild_hint(bundle.path, engines))


def _try_first_segment(bundle: Bundle, runner: SegmentRunner) -> None:
    """Load what every clip asks for first: OpenVINO has the last word on what it takes.

    Raises:
        ModelError: it refuses the engine.
    """
    from edgepkd.cascade import Position

    runner.prepare(Position(bundle.manifest.cascade.default_order[0], 1))
