"""The gate for optional packages names what to install on this very machine."""

from __future__ import annotations

import importlib
import platform
from types import ModuleType

import pytest

from edgepkd._optional import require
from edgepkd.errors import MissingExtraError


@pytest.mark.parametrize(("machine", "module", "hint"), [
    ("x86_64", "tensorrt", "pip install 'edgepkd[tensorrt]'"),
    ("aarch64", "tensorrt", "On a Jetson ask `edgepkd doctor`; elsewhere: pip install tensorrt"),
    ("aarch64", "torch_tensorrt", "elsewhere: pip install torch-tensorrt"),
    ("aarch64", "scipy", "pip install 'edgepkd[train]'"),
])
def test_the_hint_is_one_that_works_there(
    monkeypatch: pytest.MonkeyPatch, machine: str, module: str, hint: str
) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(MissingExtraError) as caught:
        require(module, purpose="This")
    assert caught.value.hint is not None
    assert hint in caught.value.hint
