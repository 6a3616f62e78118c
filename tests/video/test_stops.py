"""Ctrl-C in a read that C code asks for comes out of the call as Ctrl-C."""

from __future__ import annotations

import pytest

from edgepkd.video.stops import Stopped, carrying_stops, delivering_stops


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)])
def test_a_stop_travels_as_an_exception_and_comes_out_as_itself(stop: BaseException) -> None:
    def read() -> None:
        with carrying_stops():
            raise stop

    with pytest.raises(Stopped) as carried:
        read()
    assert carried.value.stop is stop
    assert isinstance(carried.value, Exception)  # what C code passes on
    with pytest.raises(type(stop)) as delivered, delivering_stops():
        read()
    assert delivered.value is stop


def test_errors_and_values_pass_unchanged() -> None:
    with delivering_stops(), carrying_stops():
        value = 1
    assert value == 1
    with pytest.raises(OSError, match="gone"), delivering_stops(), carrying_stops():
        raise OSError("gone")
