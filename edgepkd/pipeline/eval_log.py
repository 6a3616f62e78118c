"""RUN/eval-log.jsonl: a line for every evaluation, so that looks at the test split are counted."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from edgepkd import plain_json
from edgepkd.errors import DataError
from edgepkd.files import append_line
from edgepkd.logits.clip_logits import ClipLogits
from edgepkd.pipeline.trained_run import TrainedRun

SCHEMA_VERSION = 1
LOG_FILE = "eval-log.jsonl"


def log_look(run: TrainedRun, answered: ClipLogits, *, index: Path) -> int:
    """Add a line to the run's log; returns how many there are of this split.

    Raises:
        DataError: the log is damaged or cannot be read. StorageError: it cannot be written.
    """
    path = run.record.folder / LOG_FILE
    line = {
        "schema_version": SCHEMA_VERSION, "split": answered.split, "index": str(index),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "num_clips": len(answered), "views": str(answered.views),
        "weights_sha256": dict(run.hashes),
    }
    append_line(path, plain_json.dumps(line))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return sum(plain_json.loads(text)["split"] == answered.split for text in lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.",
                        hint="Evaluations are counted there; make it readable.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.",
                        hint="Remove the broken line; each one is a JSON object.") from error
