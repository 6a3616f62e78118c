"""Whether a file ends before its own header says it does."""

from __future__ import annotations

from pathlib import Path

from edgepkd.video.probe import RAW_FORMATS, StreamInfo

_MIN_MISSING_S, _MIN_MISSING_SHARE = 0.2, 0.05
"""More than both must be missing: headers of good files are often wrong by a frame or two."""
_RIFF_HEAD_BYTES = 8


def cut_off(info: StreamInfo, *, read_s: float) -> str | None:
    """Say how a file is cut off, in words for the user; None if it is not known to be.

    `read_s` are the seconds from the start of the stream to the end of its last frame.
    """
    if info.is_live or info.container in RAW_FORMATS:
        return None
    claimed_s = info.duration_s
    if claimed_s is not None and claimed_s - read_s > max(
            _MIN_MISSING_S, _MIN_MISSING_SHARE * claimed_s):
        return (f"{info.source} is cut off: its header says {claimed_s:.2f} s, its data end at "
                f"{read_s:.2f} s.")
    if info.container == "avi" and (missing := _missing_avi_bytes(Path(info.source))) > 0:
        return (f"{info.source} is cut off: {missing} bytes that its header counts are missing, "
                f"its data end at {read_s:.2f} s.")
    return None


def _missing_avi_bytes(path: Path) -> int:
    """FFmpeg takes the duration of an AVI from what is there; the size of its first RIFF chunk
    is what was written. 0 where a recorder never filled it in, and for what is no file."""
    try:
        with path.open("rb") as file:
            head = file.read(_RIFF_HEAD_BYTES)
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    if head[:4] != b"RIFF" or len(head) < _RIFF_HEAD_BYTES:
        return 0
    return max(0, int.from_bytes(head[4:], "little") + _RIFF_HEAD_BYTES - size)
