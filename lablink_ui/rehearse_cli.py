"""`lablink rehearse`: rehearses a class from a terminal, over the REST API of a running server."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests

GO, NO_GO, WRONG, INTERRUPTED = 0, 1, 2, 130
LOOK_S, ANSWER_S = 1.0, 30.0
TOKEN, ADDRESS = "LABLINK_API_TOKEN", "http://127.0.0.1:8080"
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_ASKED_TOO_OFTEN, _AWAY = 429, 500
HELP = """\
The evening before a class: says how many machines it needs and until when to launch them, has robots sit at every
machine that is up (claimed, connected, checked by the pool's check command, given back, cleaned), replays the arrivals
with simulated machines beside the real ones, and ends in GO or NO-GO, with reasons and remedies. People come first:
robots give way to whoever waits.

The token of an admin or operator comes from LABLINK_API_TOKEN, or from the file that LABLINK_API_TOKEN_FILE names.

Exit status: 0 GO; 1 NO-GO, or broken off; 2 the command line is wrong, or the server refused; 130 ended by Ctrl-C,
which breaks the rehearsal off.

Examples:
  lablink rehearse genomics --people 30
  lablink rehearse genomics --people 30 --over 15 --starts 2027-01-11T09:00 --server https://lablink.example.org
"""


class _Refused(Exception):
    """The server said no; the message is for people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("pool", metavar="POOL", help="the pool that the class is in")
    parser.add_argument("--people", type=int, required=True, metavar="N", help="how many people are expected")
    parser.add_argument(
        "--over", type=float, default=10, metavar="MINUTES", help="how long they go on arriving (default: 10)"
    )
    parser.add_argument(
        "--starts",
        type=_moment,
        default="09:00",
        metavar="WHEN",
        help="when the first come: 09:00 (the next one, by this computer's clock) or 2027-01-11T09:00 (default: 09:00)",
    )
    parser.add_argument("--no-arrivals", action="store_true", help="do not replay the arrivals")
    parser.add_argument("--server", default=ADDRESS, metavar="URL", help=f"the server (default: {ADDRESS})")
    parser.epilog = HELP


def run_rehearse(given: argparse.Namespace) -> int:
    """Rehearses. Returns the exit status."""
    try:
        server = _Server(given.server, _token(os.environ))
        body = {
            "pool": given.pool,
            "people": given.people,
            "over_minutes": given.over,
            "starts_at": given.starts.isoformat(),
            "arrivals": not given.no_arrivals,
        }
        rehearsal = server.ask("POST", "/api/admin/rehearsals", body)
        return _follow(server, rehearsal)
    except _Refused as exc:
        print(f"lablink rehearse: {exc}", file=sys.stderr)
        return WRONG


def _follow(server: _Server, rehearsal: dict[str, Any]) -> int:
    path, said = f"/api/admin/rehearsals/{rehearsal['id']}", list[str]()
    try:
        while True:
            for line in _news(rehearsal, said):
                print(line, flush=True)
            if rehearsal["status"] != "running":
                break
            time.sleep(LOOK_S)
            rehearsal = server.ask("GET", path)
    except KeyboardInterrupt:
        server.ask("POST", f"{path}/end")
        print("\nThe rehearsal was broken off.", file=sys.stderr)
        return INTERRUPTED
    print("\n".join(_outcome(rehearsal)))
    return GO if rehearsal["verdict"] == "go" else NO_GO


def _news(rehearsal: Mapping[str, Any], said: list[str]) -> Iterator[str]:
    """The lines that were not said yet."""
    lines = [*_need(rehearsal), *(_machine(each) for each in rehearsal["machines"]), *_arrivals(rehearsal["arrivals"])]
    for line in lines:
        if line not in said:
            said.append(line)
            yield line


def _need(rehearsal: Mapping[str, Any]) -> Iterator[str]:
    need, boots = rehearsal["need"], rehearsal["need"]["boots"]
    yield f"{need['needed']} machines are needed; {need['up']} are up, {need['coming']} are coming"
    if boots["measured"]:
        yield (
            f"boots: half within {boots['median_s']:.0f} s, nine of ten within {boots['slow_s']:.0f} s"
            f" (the last {boots['measured']:.0f})"
        )
    else:
        yield f"no boots measured yet: {boots['lead_s'] / 60:.0f} minutes are assumed"
    if last := need.get("last_class"):
        yield f"the last class: {last['people']} people came, nine of ten within {last['within_s'] / 60:.0f} min"
    if need["launch_at"]:
        until = datetime.fromisoformat(need["launch_at"]).astimezone()
        yield f"launch {need['to_launch']} more by {until:%a %d %b %H:%M %Z}"


def _machine(machine: Mapping[str, Any]) -> str:
    parts = [f"  {machine['hostname']}: {machine['status']}"]
    if machine["connection"] and machine["status"] != "waiting":
        parts.append(f"({machine['connection']})")
    if machine["problem"]:
        parts.append(f"- {machine['problem']}")
    return " ".join(parts)


def _arrivals(arrivals: Mapping[str, Any]) -> Iterator[str]:
    if arrivals["state"] == "running":
        yield f"arrivals: {arrivals['people']} people within {arrivals['within_s']} s, {arrivals['agents']} machines"
    if arrivals["state"] == "replayed":
        p95 = (arrivals.get("join_to_seat_ms") or {}).get("p95")
        yield (
            f"arrivals: {arrivals.get('seated', 0)} seated, {arrivals.get('in_line', 0)} in line, "
            f"{arrivals.get('errors', 0)} errors" + (f", 95 % seated within {p95:.0f} ms" if p95 is not None else "")
        )


def _outcome(rehearsal: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    if rehearsal["verdict"] is None:
        yield f"NO VERDICT: the rehearsal was {rehearsal['reason']}"
    else:
        yield "GO" if rehearsal["verdict"] == "go" else "NO-GO"
    for reason in rehearsal["reasons"]:
        yield f"{'!' if reason['is_against'] else '-'} {reason['what']}" + (
            f"\n    {reason['remedy']}" if reason["remedy"] else ""
        )


class _Server:
    """The server's REST API, as the one whose token it is."""

    def __init__(self, url: str, token: str) -> None:
        import requests

        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise _Refused(f"--server: '{url[:200]}' is no address such as {ADDRESS}")
        self._url, self._session = url.rstrip("/"), requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        # Loopback must stay loopback, whatever proxies are set.
        self._session.trust_env = parts.hostname not in {"127.0.0.1", "localhost", "::1"}

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks; a question goes on being asked while the server is away, as in a restart.

        Raises:
            _Refused: the server said no, or cannot be reached.
        """
        import requests

        end = time.monotonic() + 2 * ANSWER_S
        while True:
            try:
                answer = self._session.request(method, self._url + path, json=body, timeout=ANSWER_S)
            except requests.RequestException as exc:
                problem, may_return = f"{self._url} does not answer ({type(exc).__name__})", True
            else:
                if answer.ok:
                    return dict(answer.json())
                problem = _problem(answer)
                may_return = answer.status_code >= _AWAY or answer.status_code == _ASKED_TOO_OFTEN
            # What changes something is asked once: nobody knows whether it was heard.
            if method != "GET" or not may_return or time.monotonic() > end:
                raise _Refused(problem)
            time.sleep(LOOK_S)


def _problem(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}"


def _token(environment: Mapping[str, str]) -> str:
    from backend.settings import SettingsError, read_secret

    try:
        token = read_secret(environment, TOKEN)
    except SettingsError as exc:
        raise _Refused(str(exc)) from None
    if not token or not token.isascii() or not token.isprintable():
        raise _Refused(f"set {TOKEN} (or {TOKEN}_FILE) to an API token of that server")
    return token


def _moment(typed: str) -> datetime:
    """A moment, with a zone."""
    if clock := _CLOCK.fullmatch(typed):
        now = datetime.now().astimezone()
        today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        return datetime.fromisoformat(typed).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{typed}' is neither 09:00 nor 2027-01-11T09:00") from None
