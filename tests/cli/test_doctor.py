"""`edgepkd doctor` on the command line."""

from __future__ import annotations

import pytest

from edgepkd._version import __version__
from tests.cli.calling import invoke, lines


@pytest.mark.slow
@pytest.mark.smoke
def test_doctor() -> None:
    shown = invoke("doctor")
    assert shown.exit_code == 0
    for part in (__version__, "backend openvino", "CPU", "kernels", "numpy", "next: "):
        assert part in shown.stdout
    assert "those built here are noted in" in shown.stdout
    (line,) = lines(invoke("doctor", "--json", "-").stdout)
    assert line["kind"] == "machine"
    assert line["packages"]["av"]
