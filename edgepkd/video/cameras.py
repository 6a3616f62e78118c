"""Network and local cameras: opened within a time, and what happened said when they fail."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Final
from urllib.parse import urlsplit

import av
import av.error
from av.container import InputContainer

from edgepkd.errors import SourceError
from edgepkd.video.containers import open_device, open_rtsp
from edgepkd.video.limits import Limits
from edgepkd.video.source_names import shown_source

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 10.0
"""How long a network camera may take to answer and to send its next packet."""

_CHECK: Final = "Check the address, the network and that no other program holds the camera."
_CHECK_STREAM: Final = "Check the camera and the network, then start again."
_CHECK_PATH: Final = "The part of the address after the host is in the camera's manual or settings."
_CHECK_USER: Final = ("Write both into the address: rtsp://USER:PASSWORD@HOST/...; in them '@' is "
                      "%40, ':' %3A, '/' %2F, '?' %3F, '#' %23.")
_FORM: Final = "The form is rtsp://HOST:PORT/PATH."
_RTSP_PORT: Final = 554
_LIST: Final = "List cameras: ls /dev/video*."

_ANSWERS: Final[list[tuple[type[Exception], str, str]]] = [
    (av.error.HTTPUnauthorizedError,
     "it does not accept the user name or the password, or wants some (401)", _CHECK_USER),
    (av.error.HTTPForbiddenError, "this user may not see the stream (403)",
     "Give the user the right to see it in the camera's settings."),
    (av.error.HTTPNotFoundError, "there is no stream at this path (404)", _CHECK_PATH),
    (av.error.HTTPServerError, "the camera answers with an error of its own (5xx)",
     "Too many viewers, often; restart it, or ask for its other stream."),
    (av.error.HTTPOtherClientError, "the camera refuses the request (4xx)", _CHECK_PATH),
    (av.error.HTTPBadRequestError, "the camera refuses the request (400)", _CHECK_PATH),
    (av.error.ProtocolNotFoundError, "this FFmpeg does not know the protocol",
     "Use rtsp:// instead of rtsps://."),
]
_DEVICE: Final[dict[int, tuple[str, str]]] = {
    errno.EBUSY: ("another program holds the camera", "End that program."),
    errno.EACCES: ("permission denied", "Become a member of its group: sudo usermod -aG video "
                                        "$USER, then log in again."),
    errno.EPERM: ("permission denied", "Pass the device through if this is a container."),
    errno.ENODEV: ("the camera is unplugged", _LIST),
    errno.ENXIO: ("the camera is unplugged", _LIST),
    errno.EIO: ("the camera does not answer, or is unplugged", "Plug it in again."),
    errno.ENOTTY: ("it is no camera", _LIST),
    errno.EINVAL: ("it gives no video", "Cameras have devices for other data beside the video: "
                                        "try the next number."),
}


def open_camera(source: str, *, limits: Limits) -> InputContainer:
    """Open a camera.

    Raises:
        SourceError: it is not there, refuses, or does not answer in time; no part of the error
            shows a password.
    """
    if not is_network(source) and not os.path.exists(source):
        raise SourceError(f"{source} does not exist.", hint=_LIST)
    begin = time.monotonic()
    failure: tuple[str, str]
    try:
        if not is_network(source):
            return open_device(source, limits=limits)
        return open_rtsp(source, limits=limits, timeout_s=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
    except (av.FFmpegError, OSError, ValueError) as error:
        late = time.monotonic() - begin >= OPEN_TIMEOUT_S
        failure = _why_not_open(source, error, late=late, timeout_s=OPEN_TIMEOUT_S)
    # Not inside the handler: FFmpeg's error shows the address with its password, and would go
    # along as the context of this one.
    raise SourceError(f"{shown_source(source)} cannot be opened: {failure[0]}.", hint=failure[1])


def stopped(
    source: str, error: Exception | None, *, num_packets: int, seconds: float
) -> SourceError:
    """Return what to raise when no more packets come; `error` is None at an end of the stream."""
    name = shown_source(source)
    so_far = f"after {num_packets} packets, {seconds:.1f} s"
    if not is_network(source):
        what, hint = _DEVICE.get(getattr(error, "errno", None) or errno.ENODEV,
                                 (_reason(error), _CHECK_STREAM))
        return SourceError(f"{name} stopped sending {so_far}: {what}.", hint=hint)
    if isinstance(error, av.error.ExitError):
        return SourceError(f"{name} stopped sending {so_far}: nothing came for "
                           f"{READ_TIMEOUT_S:g} s.", hint=_CHECK_STREAM)
    if error is None:
        return SourceError(f"{name} ended the stream {so_far}: the camera stopped it or the "
                           "connection was closed, RTSP does not tell which.", hint=_CHECK_STREAM)
    return SourceError(f"{name} stopped sending {so_far}: {_reason(error)}.", hint=_CHECK_STREAM)


def is_network(source: str) -> bool:
    """Return whether a camera is reached through a network, not plugged in."""
    return "://" in source


def _why_not_open(
    source: str, error: Exception, *, late: bool, timeout_s: float
) -> tuple[str, str]:
    """Return reason and next step."""
    if not is_network(source):
        return _DEVICE.get(getattr(error, "errno", None) or 0, (_reason(error), _LIST))
    for kind, reason, hint in _ANSWERS:
        if isinstance(error, kind):
            return reason, hint
    if late or isinstance(error, av.error.ExitError):
        return f"no answer within {timeout_s:g} s", _CHECK
    return _why_no_connection(source, timeout_s) or (
        "it answers, but not as a camera with RTSP does", _CHECK)


def _why_no_connection(source: str, timeout_s: float) -> tuple[str, str] | None:
    """Return what keeps its host from being reached: FFmpeg calls that 'invalid data'."""
    try:
        # Of what may be shown, for what is taken for the host could be a part of the password.
        address = urlsplit(shown_source(source))
        host, port = address.hostname, address.port or _RTSP_PORT
    except ValueError:
        return "its port is not a number from 1 to 65535", _FORM
    if not host:
        return "it names no host", _FORM
    if _host_as_written(source) != host:
        return "its user name or password holds a '/', '?' or '#'", _CHECK_USER
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except (socket.gaierror, UnicodeError):
        return f"its host {host!r} is unknown", "Check the name, or use the address in numbers."
    except TimeoutError:
        return f"no answer within {timeout_s:g} s", _CHECK
    except ConnectionRefusedError:
        return (f"the connection is refused, nothing listens on port {port}",
                "Check the port, and that the camera is on and gives RTSP.")
    except OSError as error:
        return f"its host cannot be reached: {_reason(error)}", _CHECK
    return None


def _host_as_written(source: str) -> str | None:
    try:
        return urlsplit(source).hostname
    except ValueError:
        return None


def _reason(error: Exception | None) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:].rstrip(".")
