"""Text that others wrote (labels, file names, metadata), as it may be shown."""

from __future__ import annotations

import os
import re
import shlex

_UNSEEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls: they move the cursor, ring, colour, or start an escape
    "\u2028\u2029"  # line and paragraph separator
    "\u202a-\u202e\u2066-\u2069"  # turn the direction of what follows
    "\u200b\u2060\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible; the joiners are part of words
    "\ud800-\udfff"  # bytes of a file name that are no UTF-8
    "]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MARKUP = re.compile(r"[\\`*|<>\[\]&~$]|(?<!\w)_|_(?!\w)|^[#+-]")
_NUMBERED = re.compile(r"^(\d+)(?=[.)])")


def shown(text: str) -> str:
    r"""`text` on one line, with nothing in it that a terminal obeys.

    Controls, line breaks, turns of direction, invisible characters and stray bytes are written as
    escapes such as `\x1b`; all that has a shape stays, emoji and combining marks too.
    """
    return _UNSEEN.sub(_escape, text)


def markdown(text: str) -> str:
    """`shown(text)` for a Markdown file, where it is text and not markup."""
    return _NUMBERED.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", shown(text)))


def command(*words: str | os.PathLike[str]) -> str:
    r"""`words` as a line to be typed into a shell, with nothing in it that a terminal obeys.

    A path that begins with '-' is written as './-...': no program takes it for an option. What
    `shown` would escape is written as $'\033', which bash, zsh and ksh read.
    """
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    if not isinstance(word, str) and text.startswith("-"):
        text = f"./{text}"
    if not _UNSEEN.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{_UNSEEN.sub(_as_bytes, escaped)}'"


def _as_bytes(found: re.Match[str]) -> str:
    """Octal escapes of a character's bytes: unlike others they end after three digits."""
    char = found.group()
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", errors))


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    return _NAMED.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def counted(number: int, what: str, *, plural: str = "") -> str:
    """'1 clip', '2 clips'; `plural` where that is not `what` and an s."""
    return f"{number} {what if number == 1 else plural or f'{what}s'}"


def about(source: str, message: str) -> str:
    """`message` with the name of the source that it is about, unless it names it itself."""
    return message if source in message else f"{source}: {message}"
