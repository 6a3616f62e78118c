"""Every error edgepkd raises on purpose.

EdgepkdError                 anything a user can act on; shown as one message, never a traceback
├── UsageError               the request itself is wrong (exit code 2)
│   └── ConfigError          a setting is out of range or contradicts another
├── SourceError              a video cannot be found, opened or read
│   ├── LimitError           it asks for more than a limit allows
│   └── DecodeError          it opens, but holds nothing that can be decoded
├── BundleError              a bundle is missing, damaged, tampered with, or too new
├── ModelError               a checkpoint or network does not fit what was asked of it
├── DataError                labelled data is missing, empty, or leaks across splits
├── TrainingError            training went wrong: a loss that is not finite, a foreign checkpoint
├── StorageError             a file cannot be written: disk full, folder read-only
└── MissingExtraError        an optional package is not installed; names the extra

All but UsageError end the command line with exit code 1. A message says what was wrong, what
was got, what is allowed, and what to do next.
"""

from __future__ import annotations


class EdgepkdError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Make an error from `message` (what, got, allowed) and `hint` (the next step)."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class EdgepkdWarning(UserWarning):
    """Something is wrong with a source that is answered all the same, or skipped among others."""


class UsageError(EdgepkdError):
    """The request is wrong: an unknown choice, or options that exclude each other."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is out of its range or contradicts another one."""


class SourceError(EdgepkdError):
    """A video source cannot be found, opened or read."""


class LimitError(SourceError):
    """A source asks for more than a limit allows: too large a picture, too many streams."""


class DecodeError(SourceError):
    """A source opens but gives no frame that can be decoded."""


class BundleError(EdgepkdError):
    """A bundle is missing, damaged, tampered with, or written by a newer edgepkd."""


class ModelError(EdgepkdError):
    """A checkpoint or network does not fit what was asked of it."""


class DataError(EdgepkdError):
    """Labelled data is missing, empty, or the same group is on both sides of a split."""


class TrainingError(EdgepkdError):
    """Training cannot go on: a loss is not finite, or a checkpoint is of another run."""


class StorageError(EdgepkdError):
    """A file cannot be written; what was there before is still there."""


class MissingExtraError(EdgepkdError):
    """An optional package is needed and not installed."""
