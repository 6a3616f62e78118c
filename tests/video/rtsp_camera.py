"""A network camera for tests: RTSP over one TCP connection of this machine, MPEG-TS in RTP."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Manner = Literal["close", "reset", "bye", "stall", "mute", "no packets", "nonsense"]

_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:0\r\n"
_EXTRAS = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
    "PLAY": "Session: 1\r\n",
}
_CHUNK = 7 * 188


@contextmanager
def camera(content: bytes, *, then: Manner = "close", status: str = "200 OK") -> Iterator[int]:
    """Serve one viewer `content`, an MPEG-TS file, and `then` behave as told; yields the port.

    `status` is the answer to DESCRIBE.
    """
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, done, content, then, status))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(
    server: socket.socket, done: threading.Event, content: bytes, then: Manner, status: str
) -> None:
    try:
        viewer, _ = server.accept()
    except OSError:
        return  # nobody came
    with viewer:
        try:
            if then == "mute":
                done.wait()
            elif then == "nonsense":
                viewer.sendall(b"SSH-2.0-nonsense\r\n" * 100)
            elif _agreed(viewer, status):
                _play(viewer, b"" if then == "no packets" else content)
                _end(viewer, done, then)
        except OSError:
            pass  # the viewer is gone


def _agreed(viewer: socket.socket, status: str) -> bool:
    """Answer requests up to PLAY."""
    requests = viewer.makefile("rb")
    while True:
        lines = []
        while line := requests.readline().decode().strip():
            lines.append(line)
        if not lines:
            return False
        method = lines[0].split()[0]
        number = next(line for line in lines if line.startswith("CSeq"))
        refused = method == "DESCRIBE" and not status.startswith("200")
        extra = 'WWW-Authenticate: Basic realm="x"\r\n' if refused else _EXTRAS.get(method, "")
        body = _SDP if method == "DESCRIBE" and not refused else ""
        viewer.sendall(f"RTSP/1.0 {status if refused else '200 OK'}\r\n{number}\r\n{extra}\r\n"
                       f"{body}".encode())
        if method == "PLAY":
            return True


def _play(viewer: socket.socket, content: bytes) -> None:
    for number, at in enumerate(range(0, len(content), _CHUNK)):
        packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, 90 * number, 1)
        _send(viewer, 0, packet + content[at : at + _CHUNK])


def _end(viewer: socket.socket, done: threading.Event, then: Manner) -> None:
    if then in ("stall", "no packets"):
        done.wait()
    elif then == "bye":
        report = struct.pack(">BBHIIIIII", 0x80, 200, 6, 1, 0, 0, 0, 0, 0)
        _send(viewer, 1, report + struct.pack(">BBHI", 0x81, 203, 1, 1))
        done.wait()
    elif then == "reset":
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        viewer.shutdown(socket.SHUT_WR)
        done.wait()


def _send(viewer: socket.socket, channel: int, packet: bytes) -> None:
    viewer.sendall(struct.pack(">cBH", b"$", channel, len(packet)) + packet)
