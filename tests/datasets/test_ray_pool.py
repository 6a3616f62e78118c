"""The Ray pool: against a real local Ray where one is installed, else against a fake of its API."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edgepkd.datasets.pools import JOBS_AHEAD, Crash
from edgepkd.datasets.prepare_clip import ClipJob, prepare_clip
from edgepkd.datasets.ray_pool import RayPool
from edgepkd.errors import DataError, MissingExtraError
from tests.datasets.sets import make_folder_set

HAS_RAY = importlib.util.find_spec("ray") is not None


class FakeRay(ModuleType):
    """As much of Ray as the pool uses; the task of job 13 loses its worker."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[tuple[str, Any]] = []
        self.most_waiting = 0
        self.module_path, self.in_tasks = "", os.getcwd()

        class WorkerCrashedError(Exception):
            pass

        class OutOfMemoryError(Exception):
            pass

        self.exceptions = SimpleNamespace(WorkerCrashedError=WorkerCrashedError,
                                          OutOfMemoryError=OutOfMemoryError)

    def init(self, **settings: Any) -> None:
        self.calls.append(("init", settings))
        self.module_path = os.getcwd()  # which Ray 2.60 puts on the path of its workers

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **settings: Any) -> Callable[[Callable[[Any], Any]], Any]:
        self.calls.append(("remote", settings))
        return lambda function: SimpleNamespace(remote=lambda job: (function, job))

    def wait(self, references: list[Any], *, num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most_waiting = max(self.most_waiting, len(references))
        return references[-1:], references[:-1]

    def get(self, reference: Any) -> Any:
        function, job = reference
        os.chdir(self.in_tasks)
        if job == 13:
            raise self.exceptions.WorkerCrashedError
        return function(job)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    module = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def square(job: int) -> int:
    return job * job


def test_every_job_comes_back_and_a_lost_worker_is_a_crash(fake: FakeRay) -> None:
    got = dict(RayPool("local").run(square, range(40)))
    assert got == {n: Crash() if n == 13 else n * n for n in range(40)}
    assert fake.most_waiting == 2 * JOBS_AHEAD, "jobs are handed out as they can be done"
    assert [name for name, _ in fake.calls] == ["init", "remote", "shutdown"]
    assert fake.calls[0][1]["address"] == "local"


def test_it_disconnects_when_the_caller_stops_early(fake: FakeRay) -> None:
    running = RayPool("local").run(square, range(40))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert fake.calls[-1] == ("shutdown", None)


def test_no_cluster_is_an_error_at_once(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DataError, match=f"no Ray cluster answers at '{address}'"):
            RayPool(address)
    assert fake.calls == []

    def refuse(**settings: Any) -> None:
        raise ConnectionError("could not find any running Ray instance")

    monkeypatch.setattr(fake, "init", refuse)
    with pytest.raises(DataError, match="could not find any"):
        RayPool("auto")


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"edgepkd\[ray\]"):
        RayPool("local")


def where(job: int) -> str:
    return os.getcwd()


def test_workers_look_for_no_modules_in_the_current_folder(
    fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = RayPool("local")
    assert fake.module_path == sysconfig.get_path("stdlib")
    assert os.getcwd() == str(tmp_path)
    results = pool.run(where, [1])
    fake.in_tasks = "/"
    assert list(results) == [(1, str(tmp_path))], "paths of jobs may start there"


if HAS_RAY:  # else the fake above stands for it

    def test_clips_on_a_real_local_ray(tmp_path: Path) -> None:
        source = make_folder_set(tmp_path / "source", groups=2)
        (source / "run" / "empty.avi").touch()
        jobs = [ClipJob(path, tmp_path / "set", f"videos/{path.parent.name}/{path.stem}.mp4")
                for path in sorted(source.glob("*/*.avi"))]
        got = {job.path: result for job, result in RayPool("local").run(prepare_clip, jobs)}
        assert got == {job.path: prepare_clip(job) for job in jobs}
        assert sorted(r.status for r in got.values() if not isinstance(r, Crash)) == [
            "done"] * 4 + ["failed"]

    def imported(job: int) -> str:
        import colorsys

        return f"{colorsys.__file__} {os.getcwd()}"

    def test_nothing_in_the_current_folder_is_imported_by_a_real_ray(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "colorsys.py").write_text("")
        monkeypatch.chdir(tmp_path)
        ((_, found),) = RayPool("local").run(imported, [1])
        assert found == f"{sysconfig.get_path('stdlib')}/colorsys.py {tmp_path}"
