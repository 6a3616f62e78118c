"""TensorRT and TensorRT-RTX: one way to open either, and one logger.

Both have the same Python interface, so what uses them takes the module as a value. Which GPU or
board this is, the caller knows.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

from edgepkd import _optional
from edgepkd.errors import MissingExtraError

TensorRt = Literal["tensorrt", "tensorrt_rtx"]
JETPACK_BRINGS_IT = ("JetPack brings it: sudo apt install python3-libnvinfer, and make the virtual"
                     " environment with --system-site-packages (docs/jetson.md).")


def open_library(library: TensorRt, *, purpose: str, on_jetson: bool) -> ModuleType:
    """The module `library`; `purpose` is what a message says that it is needed for.

    Raises:
        MissingExtraError: it is not installed, or a shared library of it is missing; on a Jetson
            the hint is how to get JetPack's own TensorRT.
    """
    try:
        return _optional.require(library, purpose=purpose)
    except MissingExtraError as error:
        if library == "tensorrt" and on_jetson:
            error.hint = JETPACK_BRINGS_IT
        raise
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise MissingExtraError(f"{library} is installed but cannot be imported: {error}.",
                                hint="Run `edgepkd doctor`.") from error


class ErrorLog:
    """Keeps the errors that TensorRT logs, for the message; all else that it logs is not shown.

    Attributes:
        logger: what a Builder, Runtime or OnnxParser is made with.
    """

    def __init__(self, trt: Any) -> None:
        """Make a log for module `trt`."""
        self._errors: list[str] = []
        self.logger = _logger(trt, self._errors)

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._errors.clear()

    def take(self) -> str:
        """All errors since the last `take` or `clear`, as the end of a sentence."""
        reason = "; ".join(self._errors) or "it gives no reason."
        self._errors.clear()
        return reason


def _logger(trt: Any, errors: list[str]) -> Any:
    shown = trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in shown:
                errors.append(text.strip())

    return Logger()
