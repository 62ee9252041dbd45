"""An imitation of Chrome Remote Desktop's two programs, for tests: it is not Google's, and talks to nobody.

``install(directory)`` puts ``start-host`` and ``chrome-remote-desktop`` there. They take their flags as Google's do
(``--flag=value`` alone; another word is a usage error; unknown switches are passed over), ask for the PIN twice on
standard input and again without end if it is none, die without /run/user/UID or with another USER, LOGNAME or HOME,
write and read the same files, and answer with the same words and exit statuses. Unlike Google's they also run as root.

Each call is a line of ``calls.jsonl``. What the code says decides what happens: ``4/0Expired…``, ``4/0Network…``,
``4/0Hangs…`` (never ends), ``4/0Dies…`` (registers, but the host does not live), ``4/0NoSystemd…`` (registers, exit
status 1), ``4/0Stubborn…`` (a host that is restarted whenever it ends). A file ``hold-register`` or ``hold-start``
keeps that step from going on.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

REDIRECT_URL = "https://remotedesktop.google.com/_/oauthredirect"
HOST_ID = "5ca1ab1e-0000-4000-8000-00000000c0de"
PROGRAMS = ("start-host", "chrome-remote-desktop")
LOOK_S, LONGEST_S = 0.02, 60.0


def install(directory: Path) -> Path:
    """Puts both programs into a directory that every user may enter. Returns the path of ``start-host``."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("calls.jsonl", "used-codes"):
        (directory / name).touch()
        (directory / name).chmod(0o666)
    script = directory / "imitation.py"
    shutil.copy(__file__, script)
    # The system's own: other users cannot enter the environment of the tests.
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {python} {script} {name} "$@"\n')
        program.chmod(0o755)
    return directory / "start-host"


def start_host(here: Path, words: list[str]) -> int:
    """Registers."""
    switches, others = read_switches(words)
    if others or "help" in switches:
        print("Usage: start-host [--name=<hostname>] [--code=<auth-code>] [--pin=<PIN>] [--redirect-url=<redirectURL>]")
        return 1
    code, name = switches.get("code", ""), switches.get("name", "")
    if not code or not switches.get("redirect-url"):
        print("You need a web browser to use this command. Please visit")
        print("https://remotedesktop.google.com/headless for instructions.")
        return 1
    check_surroundings()
    if not name:
        print("Enter a name for this computer: ", end="", flush=True)
        name = sys.stdin.readline().strip()
    pin = switches.get("pin") or ask_pin()
    hold(here / "hold-register")
    return register(here, code, name, pin, switches["redirect-url"])


def read_switches(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """As Chromium reads a command line: a value follows an equals sign and nothing else."""
    switches, others = {}, []
    for word in words:
        if word.startswith("-") and len(word.lstrip("-")):
            key, _, value = word.lstrip("-").partition("=")
            switches[key] = value
        else:
            others.append(word)
    return switches, others


def check_surroundings() -> None:
    """Google's program dies in the middle of something where these are wrong."""
    user = pwd.getpwuid(os.getuid()).pw_name
    home = Path(os.environ.get("HOME", ""))
    runtime = Path(f"/run/user/{os.getuid()}")
    problems = [
        (not runtime.is_dir(), f"could not open {runtime}"),
        ({os.environ.get("USER"), os.environ.get("LOGNAME")} != {user}, "USER and LOGNAME are not the user"),
        (not (home.is_absolute() and home.is_dir() and os.access(home, os.W_OK)), "HOME cannot be written"),
    ]
    for is_wrong, what in problems:
        if is_wrong:
            print(f"[1124/120000.000000:FATAL:host_starter.cc(1)] Check failed: {what}", file=sys.stderr, flush=True)
            os.abort()


def ask_pin() -> str:
    """Asks twice, and again for as long as it takes: without end, where nobody answers."""
    while True:
        print("Enter a PIN of at least six digits: ", end="", flush=True)
        pin = sys.stdin.readline().strip()
        print(flush=True)
        if not re.fullmatch(r"[0-9]{6,}", pin):
            print("Please use a PIN consisting of at least six digits.", flush=True)
            continue
        print("Enter the same PIN again: ", end="", flush=True)
        again = sys.stdin.readline().strip()
        print(flush=True)
        if pin == again:
            return pin
        print("You entered different PINs.", flush=True)


def register(here: Path, code: str, name: str, pin: str, redirect_url: str) -> int:
    """What Google would answer, and the files that follow from it."""
    if code.startswith("4/0Hangs"):
        time.sleep(LONGEST_S)
    if code.startswith("4/0Network"):
        print("Couldn't start host: network error.", file=sys.stderr)
        return 1
    used = (here / "used-codes").read_text().split()
    is_code = re.fullmatch(r"4/[A-Za-z0-9_-]+", code) is not None
    if code in used or code.startswith("4/0Expired") or redirect_url != REDIRECT_URL or not is_code:
        print("Couldn't start host: OAuth error.", file=sys.stderr)
        return 1
    with (here / "used-codes").open("a") as file:
        file.write(f"{code}\n")
    config = config_path()
    config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "host_id": HOST_ID,
        "host_name": name,
        "host_secret_hash": f"hmac:{hashlib.sha256(pin.encode()).hexdigest()}",
    }
    mode = next((word for word in ("Dies", "Stubborn") if code.startswith(f"4/0{word}")), "")
    config.write_text(json.dumps({**content, "imitation": mode}))
    config.chmod(0o600)
    if code.startswith("4/0NoSystemd"):
        print("System has not been booted with systemd as init system (PID 1). Can't operate.", file=sys.stderr)
        print("Couldn't start host.", file=sys.stderr)
        return 1
    return 0


def chrome_remote_desktop(here: Path, words: list[str]) -> int:
    """Starts, stops and tells; what the host itself does is to be there."""
    config = next((Path(word[9:]) for word in words if word.startswith("--config=")), config_path())
    if "--get-status" in words:
        print("STARTED" if find_hosts(config) else "STOPPED")
        return 0
    if "--stop" in words:
        return stop(config)
    if "--child-process" in words:
        time.sleep(LONGEST_S)
        return 0
    if words != ["--start"]:
        print("usage: chrome-remote-desktop [--start | --stop | --get-status]", file=sys.stderr)
        return 2
    return start(here, config)


def start(here: Path, config: Path) -> int:
    """Leaves the host running in the background."""
    hold(here / "hold-start")
    if (os.environ.get("XDG_SESSION_CLASS"), os.environ.get("XDG_SESSION_TYPE")) != ("user", "x11"):
        print("There is no session to start in.", file=sys.stderr)
        return 1
    try:
        mode = json.loads(config.read_text())["imitation"]
    except OSError as exc:
        print(f"Failed to load config: {exc}", file=sys.stderr)
        return 1
    if mode == "Dies":
        print("Failed to launch X server", file=sys.stderr)
        return 1
    argv = [sys.executable, __file__, "chrome-remote-desktop", f"--config={config}", "--start", "--child-process"]
    if mode == "Stubborn":
        # As a service manager would: out of the session's reach, and again whenever it ends.
        argv = [sys.executable, __file__, "restart", str(config)]
    environment = {} if mode == "Stubborn" else dict(os.environ)
    subprocess.Popen(
        argv, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return 0


def restart(config: str) -> int:
    """Keeps a host running, whatever becomes of it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    argv = [sys.executable, __file__, "chrome-remote-desktop", f"--config={config}", "--start", "--child-process"]
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        subprocess.run(argv, env={}, check=False)
    return 0


def stop(config: Path) -> int:
    """Ends the host, and waits for it."""
    hosts = find_hosts(config)
    if not hosts:
        print("The daemon is not currently running", file=sys.stderr)
        return 0
    for pid in hosts:
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 1
    while find_hosts(config):
        if time.monotonic() > end:
            print("Timed out trying to kill daemon process", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)
    return 0


def find_hosts(config: Path) -> list[int]:
    """The hosts of a registration, by their command lines."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if f"--config={config}" in words and "--child-process" in words:
            found.append(int(directory.name))
    return found


def config_path() -> Path:
    """Where the registration of this computer is."""
    name = hashlib.md5(socket.gethostname().encode()).hexdigest()
    return Path(os.path.realpath(Path(os.environ["HOME"]) / ".config" / "chrome-remote-desktop" / f"host#{name}.json"))


def hold(path: Path) -> None:
    """Waits while the file is there."""
    end = time.monotonic() + LONGEST_S
    while path.exists() and time.monotonic() < end:
        time.sleep(LOOK_S)


def main(here: Path, program: str, words: list[str]) -> int:
    """One call of one of the programs."""
    if program == "restart":
        return restart(*words)
    if "--child-process" not in words:
        with (here / "calls.jsonl").open("a") as file:
            file.write(json.dumps({"program": program, "words": words, "environment": dict(os.environ)}) + "\n")
    return {"start-host": start_host, "chrome-remote-desktop": chrome_remote_desktop}[program](here, words)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, sys.argv[1], sys.argv[2:]))
