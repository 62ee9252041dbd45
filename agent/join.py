"""`lablink agent join`: makes this Linux machine a part of a pool, with or without root.

It runs from the very wheel that was downloaded, before anything is installed, so it needs the standard library alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from agent import __version__
from agent.bundled_pip import unpack_pip
from agent.config import HOSTNAME, find_boot_id, is_server, own_hostname
from agent.keeping import Kept, keep_as_process, keep_as_unit, passed_environment
from agent.store import Store

TOKEN = "LABLINK_ENROLMENT_TOKEN"  # noqa: S105 - a name
OLDEST_PYTHON = (3, 11)
ANSWER_S = 30
_LOOPBACK = ("http://127.", "http://localhost", "http://[::1]")


class JoinFailed(Exception):
    """The machine could not join; the message is for people."""


@dataclass(frozen=True)
class Wish:
    """What is asked for. ``directory`` holds all that comes of it."""

    server_url: str
    token: str
    hostname: str
    directory: Path
    prepares: bool
    may_reboot: bool

    @property
    def home(self) -> Path:
        """The agent's own directory."""
        return self.directory / "home"


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Joins. Returns the exit status."""
    wish = _parse(argv, environment)
    try:
        _check_machine()
        wish.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        python = _ensure_agent(wish.directory)
        _enrol(wish)
        kept = _keep(wish, python)
    except (JoinFailed, OSError) as exc:
        print(f"lablink: {exc}", file=sys.stderr)
        return 1
    print(
        f"\n{wish.hostname} has joined {wish.server_url}. Its page there says when it is ready.\n{kept}\n"
        f"To leave: remove it on the pool's page there; then delete {wish.directory}."
    )
    return 0


def _parse(argv: Sequence[str], environment: Mapping[str, str]) -> Wish:
    is_root = os.geteuid() == 0
    parser = argparse.ArgumentParser(
        prog="lablink agent join",
        description="Make this Linux machine a part of a pool: install the agent, enrol, and keep it running.",
        epilog="As root and under systemd, the agent is a service that starts with the machine, and each session has "
        "a user of its own. Else it is a process of yours that runs until it is ended or the machine is switched "
        "off, and sessions run as you.",
    )
    default = Path("/opt/lablink") if is_root else Path.home() / ".lablink-agent"
    add = parser.add_argument
    add("server", help="address of the server, as its pool's page shows it")
    add("--token", default=environment.get(TOKEN), help=f"the enrolment token ({TOKEN}, which `ps` does not show)")
    add("--hostname", default=own_hostname(), help="name in LabLink (default: this machine's own)")
    add("--directory", type=Path, default=default, help=f"where to install (default: {default})")
    add("--prepare-as-server-says", action="store_true", help="have the pool's repository and startup script here")
    add("--allow-reboot", action="store_true", help="as a service: let the console reboot this machine too")
    given = parser.parse_args(argv)
    if not is_server(given.server):
        parser.error("the server must be an http:// or https:// address")
    if not given.token:
        parser.error(f"there is no token: give --token, or set {TOKEN}")
    if not HOSTNAME.fullmatch(given.hostname):
        parser.error("--hostname must have 1 to 63 lower-case letters, digits and inner hyphens")
    directory = given.directory.expanduser().absolute()
    server = given.server.rstrip("/")
    return Wish(server, given.token, given.hostname, directory, given.prepare_as_server_says, given.allow_reboot)


def _check_machine() -> None:
    if sys.platform != "linux":
        raise JoinFailed(f"machines of a pool run Linux; this is {sys.platform}")
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, OLDEST_PYTHON))
        raise JoinFailed(f"the agent needs Python {version} or later; start this line with a newer python3")


def _ensure_agent(directory: Path) -> Path:
    """The Python that has the agent: this one, or that of an environment which is made from the wheel we run from."""
    wheel = Path(__file__).parents[1]
    if not wheel.is_file():
        return Path(sys.executable)
    target = directory / f"agent-{hashlib.sha256(wheel.read_bytes()).hexdigest()[:16]}"
    python = target / "venv/bin/python"
    if not (target / "complete").exists():
        print(f"Installing LabLink's agent {__version__} into {target} …", flush=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        lock = target / "requirements.txt"
        # It came within the wheel, whose checksum was looked at.
        lock.write_text(files("agent").joinpath("requirements.txt").read_text(encoding="utf-8"), encoding="utf-8")
        without = ("--without-pip",) if unpack_pip(target / "pip") else ()
        _run("Python's venv", sys.executable, "-I", "-m", "venv", *without, str(target / "venv"))
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps")
        own = {"PYTHONPATH": str(target / "pip")}
        _run("pip", *pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock), **own)
        _run("pip", *pip, "--no-index", str(wheel), **own)
        shutil.rmtree(target / "pip", ignore_errors=True)
        (target / "complete").touch()
    return python


def _run(what: str, *command: str, **environment: str) -> None:
    environment = {**passed_environment(), **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-8:]
        raise JoinFailed("\n  ".join([f"{what} failed:", *said]))


def _enrol(wish: Wish) -> None:
    """Turns the enrolment token into the agent's own, which alone is written down."""
    body = {"hostname": wish.hostname, "boot_id": find_boot_id(), "agent_version": __version__}
    request = urllib.request.Request(  # noqa: S310 - is_server allows http and https alone
        f"{wish.server_url}/api/vm_startup",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {wish.token}", "Content-Type": "application/json"},
    )
    proxies = urllib.request.ProxyHandler({} if wish.server_url.startswith(_LOOPBACK) else None)
    try:
        with urllib.request.build_opener(proxies).open(request, timeout=ANSWER_S) as response:
            token = json.load(response).get("agent_token")
    except urllib.error.HTTPError as exc:
        raise JoinFailed(f"the server refused this machine: {_sentence(exc)}") from exc
    except (OSError, ValueError) as exc:
        raise JoinFailed(f"{wish.server_url} does not answer as a LabLink server: {exc}") from exc
    if not isinstance(token, str):
        raise JoinFailed("that is the token of a machine that has joined, not one to join with")
    Store(wish.home).keep_token(token)


def _sentence(refusal: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(refusal)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {refusal.code}"


def _keep(wish: Wish, python: Path) -> str:
    """Has the agent run; returns how it is kept running, for people."""
    command = [str(python), "-m", "agent", "--server", wish.server_url, "--hostname", wish.hostname]
    command += ["--home", str(wish.home), *(["--prepare-as-server-says"] if wish.prepares else [])]
    is_service = os.geteuid() == 0 and Path("/run/systemd/system").is_dir()
    environment = {"LABLINK_LOG_FORMAT": "json"} if is_service else {}
    if wish.may_reboot and is_service:
        environment["LABLINK_REBOOT_COMMAND"] = "systemctl reboot"
    kept = Kept(wish.directory, wish.home, command, environment)
    return keep_as_unit(kept) if is_service else keep_as_process(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
