"""What a source is called: what kind its name says it is, and how people may see it."""

from __future__ import annotations

import ipaddress
import re

STDIN = "-"
HIDDEN = "***"

_LIVE = re.compile(r"rtsps?://|/dev/video\d|/dev/v4l/", re.IGNORECASE)
# Also with a slash too few: what was meant to be an address holds a password all the same.
_ADDRESS = re.compile(
    r"([a-z][a-z0-9+.-]*://|(?:rtsps?|rtmps?|https?|ftps?|udp|rtp|srt|tcp|tls|mms):/?(?!/))(.*)",
    re.IGNORECASE | re.DOTALL)
_NO_SCHEME = re.compile(r"[^/\s]*:.*@", re.DOTALL)
_VALUE = re.compile(r"=[^&;/?#]*")


def is_live_source(source: str) -> bool:
    """Return whether `source` is a camera, which has no end."""
    return _LIVE.match(source) is not None


def shown_source(source: str) -> str:
    """Return `source` as people may see it: an address without user, password and values.

    Where an address can be read in two ways, all that may be a password is left out.
    """
    found = _ADDRESS.fullmatch(source)
    if found is None or found[1].lower() == "file://":
        return source
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
