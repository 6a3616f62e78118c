"""Text that others wrote (labels, file names, metadata), as it may be shown."""

from __future__ import annotations

import re

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


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    return _NAMED.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
