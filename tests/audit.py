"""Known faults of the packages that are installed: `python -m tests.audit`, part of `just check`.

pip-audit asks the package index. Where that gives no advisories this is said, and is an error only
with `--strict`: a release needs the answer, work without a network goes on. The floors, the oldest
versions that pyproject.toml allows, are tested everywhere (tests/test_audit.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

FLOORS: Mapping[str, tuple[str, str]] = {
    "onnx": ("1.21", "CVE-2026-27489, -34446, -34447: external data through links"),
    "pillow": ("12.3", "memory safety of decoders"),
    "ray": ("2.54", "CVE-2025-62593, CVE-2026-27482: the dashboard"),
    "torch": ("2.6", "CVE-2025-32434: torch.load with weights_only"),
}
"""Package -> the first version without the fault named."""


def main() -> int:
    """Print what is known of the packages here; 1 where one of them has a known fault."""
    unknown = 1 if "--strict" in sys.argv[1:] else 0
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"],
        capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines()
        print(f"nothing was audited: {lines[-1] if lines else 'pip-audit gave no answer'}")
        return unknown
    faults, num_audited = faults_of(packages)
    for line in faults:
        print(line)
    print(f"{num_audited} of {len(packages)} packages audited, {len(faults)} known faults")
    if not num_audited:
        print("The package index gave no advisories: look again where it can be reached.")
        return unknown
    return 1 if faults else 0


def faults_of(packages: Iterable[Mapping[str, Any]]) -> tuple[list[str], int]:
    """A line for each known fault, and how many packages something is known of."""
    faults, num_audited = [], 0
    for package in packages:
        if "vulns" not in package:  # skipped
            continue
        num_audited += 1
        for fault in package["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "none yet"
            faults.append(f"{package['name']} {package['version']}: {fault['id']},"
                          f" fixed in: {fixed}")
    return faults, num_audited


if __name__ == "__main__":
    sys.exit(main())
