"""Two processes train as one does; what a machine cannot do is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgepkd.errors import ConfigError, UsageError
from edgepkd.training import execution
from edgepkd.training.execution import (
    Execution,
    auto_device,
    check_batch,
    gather_rows,
    gpu_of_rank,
    mean_over_ranks,
    process_group,
    rank,
    same_buffers,
    share,
    world_size,
)
from tests.training import ranks


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo processes has trained."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks.run_ranks(folder, count=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.slow
def test_gradients_of_two_ranks_are_those_of_one_process(of_ranks: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    expected = ranks.gradients()
    assert len(expected) == 62  # 20 convolutions with BatchNorm's 2 each, and the classifier's 2
    for found in of_ranks:
        assert set(found["gradients"]) == set(expected)
        for key, gradient in expected.items():
            scale = float(gradient.abs().max())
            assert scale > 0
            torch.testing.assert_close(found["gradients"][key], gradient, rtol=1e-5,
                                       atol=1e-5 * scale)


@pytest.mark.slow
def test_all_ranks_end_with_the_same_network(of_ranks: list[dict[str, Any]]) -> None:
    """Statistics of BatchNorm too, of which each rank has seen its own, and the same epoch."""
    first, second = (found["trunk"] for found in of_ranks)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_online_exits_of_two_ranks_are_those_of_one_process(of_ranks: list[dict[str, Any]]) -> None:
    expected = ranks.exits()
    for found in of_ranks:
        for key, value in expected.items():
            torch.testing.assert_close(found["exits"][key], value, rtol=1e-3, atol=1e-4)
    first, second = (found["exits"] for found in of_ranks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_batch_that_ranks_cannot_share_is_refused(of_ranks: list[dict[str, Any]]) -> None:
    for found in of_ranks:
        assert found["refusal"] == ("batch_clips is 3; allowed: a multiple of 2, the number of "
                                    "processes.")


def test_one_process_is_its_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(on_gpu=False):
        assert (rank(), world_size()) == (0, 1)
        assert mean_over_ranks(2.5) == 2.5
        assert share([1, 2, 3]) == [1, 2, 3]
        assert gather_rows(torch.arange(3)).tolist() == [0, 1, 2]
        check_batch(3, name="batch_clips")
        same_buffers(nn.BatchNorm2d(2))
        module = nn.Linear(2, 2)
        assert Execution().prepare(module) is module


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"workers": -1}, ConfigError, "workers is -1; allowed: 0 or more"),
    ({"device": "tpu"}, ConfigError, "device is 'tpu'; allowed: cpu, cuda, cuda:N"),
    ({"device": "cuda:x"}, ConfigError, "device is 'cuda:x'"),
    ({"device": "cuda:0"}, UsageError, "this PyTorch sees no GPU"),
    ({"mixed_precision": True}, ConfigError, "mixed_precision is 'true on the CPU'"),
    ({"compile": True}, ConfigError, "compile is 'true on the CPU'"),
])
def test_what_the_machine_cannot_do_is_refused(
    settings: dict[str, Any], error: type[Exception], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        Execution(**settings)


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(execution.torch.cuda, "is_available", lambda: True)
    assert auto_device() == gpu_of_rank() == "cuda:3"
    monkeypatch.delenv("LOCAL_RANK")
    assert auto_device() == "cuda:0"
    monkeypatch.setattr(execution.torch.cuda, "is_available", lambda: False)
    assert auto_device() == "cpu"
