"""Options that verbs share: what they take."""

from __future__ import annotations

import pytest

from edgepkd.cli.options import count_of
from edgepkd.errors import UsageError


def test_a_number_or_all() -> None:
    assert count_of("clips", "all") is None
    assert count_of("clips", "12") == 12
    for text in ("few", "", "1.5", "ALL"):
        with pytest.raises(UsageError, match=r"clips is '.*'; allowed: a number from 1, or all"):
            count_of("clips", text)
