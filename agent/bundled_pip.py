"""The pip that Python brings along, used where it lies unpacked: to install it, and compile it, takes longer than all
that it then installs for the agent.

It runs from the agent's wheel, before anything is installed, so it needs the standard library alone.
"""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path


def unpack_pip(directory: Path) -> bool:
    """Unpacks it; whether this Python brings one."""
    spec = find_spec("ensurepip")
    own = Path(spec.origin).parent / "_bundled" if spec and spec.origin else None
    places = [place for place in (sysconfig.get_config_var("WHEEL_PKG_DIR"), own) if place]
    wheel = next((wheel for place in places for wheel in sorted(Path(place).glob("pip-*.whl"))), None)
    if wheel is not None:
        zipfile.ZipFile(wheel).extractall(directory)
    return wheel is not None


if __name__ == "__main__":
    sys.exit(0 if unpack_pip(Path(sys.argv[1])) else 1)
