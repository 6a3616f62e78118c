"""What the fixtures of all rooms promise."""

from __future__ import annotations

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.mark.parametrize("number", [THREADS + 1, THREADS + 2])
def test_threads_that_a_test_sets_are_not_those_of_the_next(number: int) -> None:
    assert torch.get_num_threads() == THREADS
    torch.set_num_threads(number)
