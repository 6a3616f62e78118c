"""Fixtures shared by all rooms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_CASES = SHARED_DATA.with_name("cases")


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no child of one, writes to the private folder of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def _first_threads_of_torch() -> int:
    """PyTorch's threads before any test; 0 where nothing has imported it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 0


@pytest.fixture(autouse=True)
def _threads_of_torch(_first_threads_of_torch: int) -> Iterator[None]:
    """Verbs, studies and tests set PyTorch's threads for their process: not for the next test."""
    yield  # what a fixture of a whole module has set before this test is put back after it, too
    if _first_threads_of_torch:
        sys.modules["torch"].set_num_threads(_first_threads_of_torch)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real labelled and hostile clips that lies beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs that went wrong once, beside the checkout."""
    if not SHARED_CASES.is_dir():
        pytest.skip("../shared/cases is not beside this checkout")
    return SHARED_CASES
