"""No output of a run on a camera holds its password, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from tests.clips import encode_clip, translating_texture
from tests.processes import ROOT, hearing_ctrl_c
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

SECRETS = ("p%40ss", "p@ss", "hunter2")
ADDRESSES = (
    "rtsp://user:p%40ss@127.0.0.1:1/x", "rtsp://user:p@ss@127.0.0.1:1/x?key=hunter2",
    "http://user:p%40ss@127.0.0.1:1/x.mp4?token=hunter2", "user:hunter2@127.0.0.1:1/*.mp4",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def written(folder: Path) -> Iterator[bytes]:
    """Names and contents of all that was left behind."""
    for path in folder.rglob("*"):
        yield os.fsencode(path)
        if path.is_file():
            yield path.read_bytes()


def run(
    folder: Path, *arguments: object, code: str = "from edgepkd.cli.main import main; main()"
) -> tuple[int, bytes]:
    """Exit code and all of stdout and stderr, in debug mode; no secret is in them or in files."""
    with hearing_ctrl_c():
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, cwd=folder,
            timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEPKD_DEBUG": "1"})
    for text in (done.stdout, done.stderr, *written(folder)):
        for secret in SECRETS:
            assert secret.encode() not in text
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_camera_that_is_not_there(tmp_path: Path, bundle: Bundle, address: str) -> None:
    code, shown = run(tmp_path, "run", address, "--model", bundle.path, "--json", "out.jsonl")
    assert code == 1
    assert b"error: " in shown
    assert b"127.0.0.1:1" in shown
    code, shown = run(tmp_path, "inspect", address, "--json", "-")
    assert code == 1
    assert b"127.0.0.1:1" in shown
    code, shown = run(tmp_path, "vectors", address, "--out", "vec", "--json", "vec.jsonl")
    assert code == 1
    assert b"127.0.0.1:1" in shown
    assert not (tmp_path / "vec").exists()


@pytest.mark.parametrize("arguments", [
    ["--save", "out.mp4"], ["--json", "/nowhere/out.jsonl"], ["--model", "none.edgepkd"],
    ["--clips", "0"], ["rtsp://user:hunter2@127.0.0.1/y"], ["--route", "rtsp://user:hunter2@cam/"],
    ["--rtsp://user:hunter2@cam/"],
])
def test_a_wrong_request(tmp_path: Path, arguments: list[str]) -> None:
    code, shown = run(tmp_path, "run", ADDRESSES[0], *arguments)
    assert code in (1, 2)
    assert b"rror: " in shown


CAMERA = """
import os, signal, sys
import av
from edgepkd.cli.main import main
from edgepkd.cli.show_run import RunView
from edgepkd.cli.show_vectors import VectorsView

View = VectorsView if sys.argv[1] == "vectors" else RunView
ends, real, take = sys.argv.pop(), av.open, View.take

def open_it(file, *arguments, **settings):
    if not str(file).lower().startswith("rtsp"):
        return real(file, *arguments, **settings)
    container = real("camera.avi")
    if ends == "failure":
        return Failing(container)
    return container

class Failing:
    def __init__(self, container):
        self.container = container

    def __getattr__(self, name):
        return getattr(self.container, name)

    def demux(self, *streams):
        for number, packet in enumerate(self.container.demux(*streams)):
            if number == 30:
                raise av.error.ConnectionResetError(104, "Connection reset", sys.argv[2])
            yield packet

def shown(self, event):
    take(self, event)
    if ends.isdecimal() and type(event).__name__ in ("ClipDone", "VectorsWritten"):
        os.kill(os.getpid(), int(ends))

av.open, View.take = open_it, shown
main()
"""
"""The command, where a camera is the file camera.avi; the last argument says how it ends."""


@pytest.mark.parametrize(("ends", "code", "json_to"), [
    ("end", None, "-"), ("failure", 1, "-"), ("failure", 1, "out.jsonl"),
    (str(int(signal.SIGINT)), 130, "out.jsonl"), (str(int(signal.SIGTERM)), 143, "-"),
])
def test_a_camera_that_answers(
    tmp_path: Path, bundle: Bundle, ends: str, code: int | None, json_to: str
) -> None:
    encode_clip(tmp_path / "camera.avi", translating_texture(60, (160, 96), (2, 0)))
    got, shown = run(tmp_path, "run", ADDRESSES[1], "--model", bundle.path, "--json", json_to, ends,
                     code=CAMERA)
    assert got in ((0, 1) if code is None else (code,)), shown.decode()
    lines = shown if json_to == "-" else (tmp_path / json_to).read_bytes()
    assert b'"source": "rtsp://***@127.0.0.1:1/x?key=***"' in lines
    assert b'"kind": "summary"' in lines
    if code == 1:
        assert b"stopped sending" in shown


@pytest.mark.parametrize(("ends", "code"), [
    ("failure", 1), (str(int(signal.SIGINT)), 130), (str(int(signal.SIGTERM)), 143),
])
def test_vectors_of_a_camera(tmp_path: Path, ends: str, code: int) -> None:
    """The first file stays where it was written, with an index; no password in it."""
    encode_clip(tmp_path / "camera.avi", translating_texture(60, (160, 96), (2, 0)))
    got, shown = run(tmp_path, "vectors", ADDRESSES[1], "--out", "vec", "--json", "out.jsonl", ends,
                     code=CAMERA)
    assert got == code, shown.decode()
    lines = (tmp_path / "out.jsonl").read_bytes()
    assert b'"kind": "summary"' in lines
    if code == 1:
        assert b"stopped sending" in shown
        assert not (tmp_path / "vec").exists()
        return
    assert b"interrupted" in shown
    (row,) = (tmp_path / "vec" / "index.csv").read_text().splitlines()[1:]
    assert row.startswith("gop-000000.npz,0.0,0.48,12,1,native,")
    assert row.endswith(",rtsp://***@127.0.0.1:1/x?key=***")
    assert sorted(os.listdir(tmp_path / "vec")) == ["gop-000000.npz", "index.csv"]
    assert b'"source": "rtsp://***@127.0.0.1:1/x?key=***"' in lines
