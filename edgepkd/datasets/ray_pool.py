"""The same jobs on a Ray cluster, for sets of Kinetics' size.

Every node needs edgepkd, and source and target under the same paths (a shared file system).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from edgepkd._optional import require
from edgepkd.datasets.pools import JOBS_AHEAD, Crash, J, R
from edgepkd.errors import DataError

LOCAL = "local"
CONNECT_TIMEOUT_S = 5.0


class RayPool:
    """Tasks of one CPU each on the cluster at `address`; 'local' starts one on this machine."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            MissingExtraError: Ray is not installed. DataError: there is no cluster.
        """
        self._ray = require("ray", purpose="Preparing data with --ray")
        try:
            _check_answers(address)
            # Ray has its workers look for modules in the current folder first.
            with _in_folder(sysconfig.get_path("stdlib")):
                self._ray.init(address=address, log_to_driver=False, logging_level="error",
                               **({"include_dashboard": False} if address == LOCAL else {}))
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"no Ray cluster answers at {address!r}: {error}",
                            hint="Start one with: ray start --head; or use --ray local.") from error

    def run(
        self, function: Callable[[J], R], jobs: Iterable[J]
    ) -> Iterator[tuple[J, R | Crash]]:
        """Yield each job with its result; disconnects at the end."""
        ray, here = self._ray, os.getcwd()

        def there(job: J) -> R:
            with contextlib.suppress(OSError):  # paths of jobs may start where this process is
                os.chdir(here)
            return function(job)

        task = ray.remote(num_cpus=1, max_retries=1)(there)
        ahead = iter(jobs)
        waiting: dict[Any, J] = {}
        limit = JOBS_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        try:
            while True:
                for job in islice(ahead, limit - len(waiting)):
                    waiting[task.remote(job)] = job
                if not waiting:
                    return
                for done in ray.wait(list(waiting), num_returns=1)[0]:
                    yield waiting.pop(done), self._result(done)
        finally:
            ray.shutdown()

    def _result(self, reference: object) -> R | Crash:
        try:
            return self._ray.get(reference)  # type: ignore[no-any-return]
        except (self._ray.exceptions.WorkerCrashedError,
                self._ray.exceptions.OutOfMemoryError):
            return Crash()


@contextlib.contextmanager
def _in_folder(path: str) -> Iterator[None]:
    """Be in a folder for the length of the block."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _check_answers(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes.

    Raises:
        OSError: no answer. ValueError: the port is no number.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), CONNECT_TIMEOUT_S).close()
