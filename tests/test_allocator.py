"""What a process of edgepkd's own keeps of the memory that it freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, numpy as np
from edgepkd.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(2):
    before = faults()
    for _ in range(50):
        arrays = [np.ones(600_000, np.uint8) for _ in range(12)]
        del arrays
print(faults() - before)
"""


def _faults(*, keeps: bool) -> int:
    done = subprocess.run([sys.executable, "-c", CODE.format(keeps=keeps)], check=True,
                          capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc what to do")
def test_pages_stay_with_the_process() -> None:
    assert _faults(keeps=True) < 200 < _faults(keeps=False)
