"""A process in which users of OpenVINO come and go, and then signals with handlers.

    python -m tests.libraries.dropping BUNDLE ORDER USER...

ORDER: 'first' (made first, dropped first), 'last', 'kept' (dropped by the interpreter) or 'thread'
(as 'first', in a thread that then ends). Prints a line when it is still alive at the end.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgepkd.bundle.reading import read_bundle
from edgepkd.cascade import Position
from edgepkd.deploy.parity import SegmentChain
from edgepkd.engines.builder import Settings, Shapes
from edgepkd.engines.openvino import OpenVinoBuilder
from edgepkd.pipeline.doctor import describe
from edgepkd.runtime.model import open_session
from edgepkd.runtime.settings import ModelConfig

SIGNALS = (signal.SIGUSR1, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD)
SHAPES = Shapes(frame=(2, 32, 32), min_frames=2, opt_frames=2, max_frames=2)
X = np.ones((2, 2, 32, 32), np.float32)


def session(path: Path) -> object:
    """A session, as `edgepkd run` makes it, that has answered."""
    made = open_session(read_bundle(path), ModelConfig(threads=1))
    made.runner.run(Position("mv", 1), X)
    return made


def builder(path: Path) -> object:
    """A builder of engines that has built and measured one."""
    made = OpenVinoBuilder()
    plan = made.build((path / "segments/mv_1.onnx").read_bytes(), precision="fp32",
                      shapes=SHAPES, settings=Settings())
    assert isinstance(made.measure(plan.content, shapes=SHAPES), float)
    return made


def parity(path: Path) -> object:
    """A chain of exported segments that has answered."""
    segments = {("mv", k): (path / f"segments/mv_{k}.onnx").read_bytes() for k in range(1, 5)}
    made = SegmentChain(segments, "mv", frames=2)  # type: ignore[arg-type]
    made(X)
    return made


def doctor(path: Path) -> object:
    """What `edgepkd doctor` looks at."""
    return describe()


USERS: dict[str, Callable[[Path], object]] = {
    "session": session, "builder": builder, "parity": parity, "doctor": doctor}


def come_and_go(path: Path, order: str, users: list[str]) -> list[object]:
    """Make all users, drop them in `order`; returns those that stay."""
    made = [USERS[user](path) for user in users]
    while made and order != "kept":
        made.pop(0 if order in ("first", "thread") else -1)
        gc.collect()
    return made


def main() -> None:
    """Do what the arguments say."""
    path, order, users = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    kept: list[object] = []
    if order == "thread":
        thread = threading.Thread(target=come_and_go, args=(path, order, users))
        thread.start()
        thread.join()
        come_and_go(path, "first", users)
    else:
        kept = come_and_go(path, order, users)
    handled: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: handled.append(number))
        signal.raise_signal(number)
    assert handled == list(SIGNALS)
    print("alive", len(kept), flush=True)


if __name__ == "__main__":
    main()
