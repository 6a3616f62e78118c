"""What a source is called: what kind its name says it is, and how people may see it."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from typing import IO
from urllib.parse import unquote_to_bytes

from edgepkd.errors import SourceError

STDIN = "-"
HIDDEN = "***"
UNNAMED = "<file object>"
ALLOWED = ("a file, a folder, a pattern such as 'clips/*.mp4' or 'seq/*.jpg', '-', rtsp://..., "
           "/dev/video*")

Source = str | os.PathLike[str] | IO[bytes]
"""One source: a name, a path, or a file that was opened for reading bytes."""
SourceArgument = Source | Sequence[Source]
"""What may stand where sources are named."""

_LIVE = re.compile(r"rtsps?://|/dev/video\d|/dev/v4l/", re.IGNORECASE)
# Also with a slash too few: what was meant to be an address holds a password all the same.
_ADDRESS = re.compile(
    r"([a-z][a-z0-9+.-]*://|(?:rtsps?|rtmps?|https?|ftps?|udp|rtp|srt|tcp|tls|mms):/?(?!/))(.*)",
    re.IGNORECASE | re.DOTALL)
_NO_SCHEME = re.compile(r"[^/\s]*:.*@", re.DOTALL)
_FILE = re.compile(r"file:(//(?:localhost)?(?=/))?(?!//)", re.IGNORECASE)
_VALUE = re.compile(r"=[^&;/?#]*")


def is_live_source(source: Source) -> bool:
    """Return whether `source` is a camera, which has no end."""
    return (isinstance(source, (str, os.PathLike))
            and _LIVE.match(plain_source(source)) is not None)


def plain_source(source: str | os.PathLike[str]) -> str:
    """Return `source` as a name that opens: a path for a file address, schemes in lower case."""
    name = os.fsdecode(source)
    if not isinstance(source, str):
        # A path is never standard input.
        return f"./{name}" if name == STDIN else name
    if (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name)) is not None:
        name = scheme[0].lower() + name[scheme.end():]
    return _file_path(name) or name


def shown_source(source: Source) -> str:
    """Return `source` as people may see it: an address without user, password and values.

    Where an address can be read in two ways, all that may be a password is left out.
    """
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        return os.fsdecode(name) if isinstance(name, (str, bytes)) and name else UNNAMED
    text = os.fsdecode(source)
    found = _ADDRESS.fullmatch(text)
    if found is None or found[1].lower() == "file://":
        return text
    scheme, rest = found.groups()
    end = _end_of_user(rest)
    user, rest = rest[:end], rest[end:]
    place, mark, query = _cut(rest)
    place = _VALUE.sub(f"={HIDDEN}", place)
    return f"{scheme}{HIDDEN + '@' if user else ''}{place}{mark}{_without_values(query)}"


def shown_argument(argument: str) -> str:
    """Return what someone typed, as people may see it; it may be an address without a scheme."""
    if _ADDRESS.fullmatch(argument) is None and _NO_SCHEME.match(argument):
        return f"{HIDDEN}@{argument.rpartition('@')[2]}"
    return shown_source(argument)


def as_list(argument: SourceArgument) -> list[Source]:
    """Return one source or several as a list.

    Raises:
        SourceError: it is neither a name, nor a path, nor a file.
    """
    if isinstance(argument, (str, os.PathLike)) or hasattr(argument, "read"):
        return [argument]  # type: ignore[list-item]
    sources = list(argument) if isinstance(argument, Sequence) else [argument]
    for source in sources:
        if not isinstance(source, (str, os.PathLike)) and not hasattr(source, "read"):
            raise SourceError(f"a source is of type {type(source).__name__}; allowed: a name, a "
                              "path, a file opened with 'rb', or a list of them.",
                              hint="Bytes of a video go into io.BytesIO(...).")
    return sources


def _file_path(name: str) -> str | None:
    """Return the path that 'file:...' stands for; None where a file is really called that."""
    mark = _FILE.match(name)
    if mark is None or os.path.lexists(name):
        return None
    raw = name[mark.end():]
    decoded = os.fsdecode(unquote_to_bytes(os.fsencode(raw)))
    return raw if os.path.lexists(raw) and not os.path.lexists(decoded) else decoded


def _end_of_user(rest: str) -> int:
    """Return where the host begins; an unescaped password may hold '@', ':', '/', '?' and '#'."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and "%40" in authority:
        return authority.rindex("%40") + 3
    if "@" in authority or not _is_host(authority):
        return rest.rfind("@") + 1
    return 0


def _is_host(authority: str) -> bool:
    """Return whether this can be nothing but a host: 'name:80' may be a user and a password."""
    if ":" not in authority:
        return True
    host, _, port = authority.rpartition(":")
    host, port = (authority, "") if authority.endswith("]") else (host, port)
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return port.isdecimal() or not port


def _cut(rest: str) -> tuple[str, str, str]:
    mark = re.search(r"[?#]", rest)
    return (rest, "", "") if mark is None else (rest[:mark.start()], mark[0], rest[mark.end():])


def _without_values(query: str) -> str:
    """Return the names in a query; a piece that has none may be the secret itself."""
    pieces = re.split(r"([&;])", query)
    return "".join(
        piece if piece in ("", "&", ";") else
        (f"{piece.partition('=')[0]}={HIDDEN}" if "=" in piece else HIDDEN) for piece in pieces)


def told_name(source: Source) -> str:
    """What messages call `source`."""
    return "Standard input" if source == STDIN else shown_source(source)
