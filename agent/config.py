"""What an agent is told at its start: flags, with the environment behind them. Secrets stay off command lines."""

from __future__ import annotations

import argparse
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.own_log import JSON, TEXT

_CRD_START_HOST = Path("/opt/google/chrome-remote-desktop/start-host")
CONTAINER = "lablink-workload"
_KERNEL_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SERVER = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
_TOKEN = re.compile(r"[!-~]{1,500}")


@dataclass(frozen=True)
class Config:
    """The agent's configuration. ``boot_id`` is new after each boot of the machine."""

    server_url: str
    hostname: str
    home: Path
    boot_id: str
    enrolment_token: str | None
    container: str | None
    startup_script: Path | None
    repository: str | None
    reboot_command: str | None
    startup_deadline_s: float = 1_800.0
    crd_start_host: Path = _CRD_START_HOST
    spot_metadata_url: str | None = None
    image: str | None = None
    asks_server: bool = False
    # cloud-init's word on its phases, and what it wrote: where this machine was made by it.
    boot_files: tuple[Path, Path] | None = None
    cleaning_script: Path | None = None
    log_format: str = TEXT


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration. Ends the process with a usage message if it is wrong (argparse's habit)."""
    parser = _parser(environment)
    given = parser.parse_args(argv)
    if not is_server(given.server or ""):
        parser.error("--server (or LABLINK_SERVER_URL) must be the http:// or https:// address of the server")
    if not HOSTNAME.fullmatch(given.hostname):
        parser.error("--hostname must have 1 to 63 lower-case letters, digits and inner hyphens")
    token = environment.get("LABLINK_ENROLMENT_TOKEN") or None
    if given.enrolment_token_file:
        try:
            token = Path(given.enrolment_token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            parser.error(f"--enrolment-token-file: {exc}")
    if token is not None and not _TOKEN.fullmatch(token):
        parser.error("the enrolment token must be as the server gave it: letters, digits and signs, without spaces")
    return Config(
        server_url=given.server.rstrip("/"),
        hostname=given.hostname,
        home=Path(given.home).expanduser().absolute(),
        boot_id=environment.get("LABLINK_BOOT_ID") or find_boot_id(),
        enrolment_token=token,
        container=given.container or (CONTAINER if given.image else None),
        startup_script=Path(given.startup_script) if given.startup_script else None,
        repository=given.repository,
        reboot_command=environment.get("LABLINK_REBOOT_COMMAND") or None,
        crd_start_host=Path(environment.get("LABLINK_CRD_START_HOST") or _CRD_START_HOST),
        spot_metadata_url=environment.get("LABLINK_SPOT_METADATA_URL") or None,
        image=given.image or None,
        asks_server=given.prepare_as_server_says,
        boot_files=_boot_files(environment.get("LABLINK_BOOT_FILES") or ""),
        cleaning_script=Path(given.cleaning_script) if given.cleaning_script else None,
        log_format=given.log_format,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lablink agent",
        description="Enrol this machine with a LabLink server, report its health, and do what the server asks.",
        epilog="First start: put the enrolment token into LABLINK_ENROLMENT_TOKEN or a file. Later starts need none: "
        "the agent keeps its own in a file that only its user can read.\n\n"
        "  LABLINK_ENROLMENT_TOKEN=… lablink agent --server https://lablink.example.org --hostname gpu-01",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    get = environment.get
    parser.add_argument(
        "--server", default=get("LABLINK_SERVER_URL"), help="address of the server (LABLINK_SERVER_URL)"
    )
    parser.add_argument(
        "--hostname",
        default=get("LABLINK_HOSTNAME") or own_hostname(),
        help="name of this machine in LabLink (LABLINK_HOSTNAME; default: this machine's own)",
    )
    parser.add_argument(
        "--home", default=get("LABLINK_AGENT_HOME") or "~/.lablink-agent", help="data directory (LABLINK_AGENT_HOME)"
    )
    parser.add_argument("--enrolment-token-file", help="file that holds the enrolment token, for the first start")
    parser.add_argument("--container", default=get("LABLINK_CONTAINER"), help="a Docker container that must be running")
    parser.add_argument(
        "--image",
        default=get("LABLINK_IMAGE"),
        help=f"the image of that container, which is then pulled and run (LABLINK_IMAGE; default name: {CONTAINER})",
    )
    parser.add_argument(
        "--startup-script",
        default=get("LABLINK_STARTUP_SCRIPT_FILE"),
        help="a script to run before the machine is ready",
    )
    parser.add_argument(
        "--cleaning-script",
        default=get("LABLINK_CLEANING_SCRIPT_FILE"),
        help="a script to run between two people, once the processes of the former have ended",
    )
    parser.add_argument(
        "--repository", default=get("LABLINK_REPOSITORY"), help="a git repository to clone before the machine is ready"
    )
    parser.add_argument(
        "--prepare-as-server-says",
        action="store_true",
        help="clone and run what the pool's page says, as this process's user, instead of the three above",
    )
    parser.add_argument(
        "--log-format",
        choices=(TEXT, JSON),
        default=JSON if get("LABLINK_LOG_FORMAT") == JSON else TEXT,
        help="how it writes its own log: for people, or a JSON object a line (LABLINK_LOG_FORMAT; default: text)",
    )
    return parser


def _boot_files(given: str) -> tuple[Path, Path] | None:
    status, _, output = given.partition(":")
    return (Path(status), Path(output)) if status and output else None


def is_server(url: str) -> bool:
    """Whether this can be the address of a server: http or https, and its port, if it names one, is one."""
    try:
        return _SERVER.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:
        return False


def own_hostname() -> str:
    """What this machine calls itself, without its domain."""
    return socket.gethostname().split(".")[0].lower()


def find_boot_id() -> str:
    """The kernel's own name of this boot; where there is none, of this start."""
    try:
        return _KERNEL_BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())
