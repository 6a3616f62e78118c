"""`python -m edgepkd.studies.demo`: rebuilds one demo bundle."""

from __future__ import annotations

import sys

from edgepkd._optional import require
from edgepkd.errors import MissingExtraError


def main() -> int:
    """Check that the packages of the extra `train` are there, then build."""
    try:
        for module in ("torch", "scipy", "safetensors", "modelopt"):
            require(module, purpose="Training")
    except MissingExtraError as error:
        print(f"error: {error.message}\n  next: {error.hint}", file=sys.stderr)
        return error.exit_code
    from edgepkd.studies.demo.build import main as build

    return build()


if __name__ == "__main__":
    sys.exit(main())
