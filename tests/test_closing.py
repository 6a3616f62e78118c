"""What is closed at the end of a block is closed after an error too."""

from __future__ import annotations

import pytest

from edgepkd.closing import Closing


class Door(Closing):
    times_closed = 0

    def close(self) -> None:
        self.times_closed += 1


def test_a_block_gives_the_thing_itself_and_closes_it() -> None:
    door = Door()
    with door as same:
        assert same is door
        assert door.times_closed == 0
    assert door.times_closed == 1


def test_an_error_closes_it_and_goes_on() -> None:
    door = Door()
    with pytest.raises(ZeroDivisionError), door:
        _ = 1 / 0
    assert door.times_closed == 1


def test_who_does_not_say_how_to_close_cannot_be_made() -> None:
    class Wall(Closing):
        pass

    with pytest.raises(TypeError, match="close"):
        Wall()  # type: ignore[abstract]
