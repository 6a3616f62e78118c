"""Settings of training are checked before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepkd.errors import ConfigError, EdgepkdError, UsageError
from edgepkd.pipeline.train_config import ExitsConfig, TrainConfig


@pytest.mark.parametrize("kind", [TrainConfig, ExitsConfig])
@pytest.mark.parametrize(("changes", "message", "error"), [
    ({"modalities": ()}, "modality is ", ConfigError),
    ({"modalities": ("mv", "mv")}, "modality is ", ConfigError),
    ({"modalities": ("rgb",)}, "allowed: each of mv, residual, iframe at most once", ConfigError),
    ({"jobs": 0}, "jobs is 0", ConfigError), ({"threads": 0}, "threads is 0", ConfigError),
    ({"resume": True, "force": True}, "--resume keeps .* --force replaces", UsageError),
])
def test_wrong_settings_are_named(
    kind: type[TrainConfig], changes: dict[str, Any], message: str, error: type[EdgepkdError]
) -> None:
    with pytest.raises(error, match=message):
        kind(run=Path("runs/a"), **changes)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="method is 'kd'; allowed: pkd, anticurriculum, iframe"):
        ExitsConfig(run=Path("runs/a"), method="kd")  # type: ignore[arg-type]
