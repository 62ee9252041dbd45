"""What the tests need beside Python: Chromium and small programs. What is missing is installed, or this fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lablink_ui.bench import browser

PROGRAMS = ("curl", "haproxy", "jq", "shellcheck")


def find_chromium() -> str | None:
    """The path of a Chromium: named by CHROMIUM, on the PATH, or installed by Playwright."""
    return browser.find_chromium() or _find_playwrights()


def main() -> int:
    """Ensures them; returns the exit status."""
    missing = []
    if not (find_chromium() or _install_chromium()):
        missing.append("Chromium (set CHROMIUM=/path/to/one)")
    missing += [
        name for name in PROGRAMS if not (shutil.which(name) or (_install_package(name) and shutil.which(name)))
    ]
    if missing:
        print(f"The tests need what could not be installed: {', '.join(missing)}.", file=sys.stderr)
    return 1 if missing else 0


def _install_chromium() -> bool:
    if any(_install_package(name) and find_chromium() for name in ("chromium-headless-shell", "chromium")):
        return True
    print("Installing Chromium (Playwright's) …")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    return find_chromium() is not None


def _install_package(name: str) -> bool:
    """Installs a Debian package, where this is Debian and we are root."""
    if not shutil.which("apt-get") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    print(f"Installing {name} (the system's package) …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", name]
    return subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode == 0


def _find_playwrights() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


if __name__ == "__main__":
    sys.exit(main())
