"""The console command `lablink`. Each verb's imports wait until it is chosen: a VM has no server parts."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lablink_ui import admin_cli, deploy_cli, rehearse_cli
from lablink_ui.swarm import command as swarm

if TYPE_CHECKING:
    from backend.settings import Settings

_ENVIRONMENT = {
    "LABLINK_HOME": "the data directory (default: ~/.local/share/lablink)",
    "LABLINK_ADMIN_PASSWORD": "the first admin's password (default: generated and shown once)",
    "LABLINK_API_TOKEN": "an admin API token of 24 characters or more",
    "LABLINK_DATABASE_URL": "an external Postgres (default: the embedded one)",
    "LABLINK_KEYS": "keys that seal and sign, newest first (default: made, and kept in the data directory)",
    "LABLINK_OIDC_CLIENT_SECRET": "our secret with the organisation's sign-in",
    "LABLINK_WEBHOOK_URL": "where alarms are posted (https://…); Slack's and its like hold a secret",
    "LABLINK_WEBHOOK_SECRET": "signs what is posted there, by the rules of standardwebhooks.com",
    "LABLINK_SMTP_PASSWORD": "the password of alarms.smtp_user",
    "LABLINK_METRICS_TOKEN": "a token that may read /metrics and nothing else, 24 characters or more",
}
_ENVIRONMENT_HELP = "Secrets come from the environment, or from a file named by …_FILE:\n" + "\n".join(
    f"  {name:<26} {text}" for name, text in _ENVIRONMENT.items()
)
_SETTINGS_HELP = f"""\
Settings are given as key=value and override an optional YAML file (--config, or LABLINK_CONFIG);
`lablink config` lists every key. {_ENVIRONMENT_HELP}
"""
_BENCH_HELP = """\
Examples:
  lablink bench
  lablink bench claims heartbeats --json figures.json

Each scenario starts a server of its own on this machine, measures it and the limit below it in the same run, and ends
both. Nothing else should run meanwhile. Slow figures are no failure; a double claim or an error answer is (status 1).
"""
_EXAMPLES = {
    "demo": "  lablink demo\n  lablink demo server.port=9000 agent.heartbeat_interval_s=5",
    "serve": "  lablink serve --config lablink.yaml\n"
    "  lablink serve server.host=0.0.0.0 server.public_url=https://lablink.example.org",
    "worker": "  LABLINK_DATABASE_URL=postgresql://… lablink worker jobs.concurrency=8",
    "migrate": "  LABLINK_DATABASE_URL=postgresql://… lablink migrate",
    "admin": "  lablink admin list\n  lablink admin invite kim --role operator\n  lablink admin reset kim",
    "config": "  lablink config server.port=9000",
    "keys": "  lablink keys rotate\n  lablink keys new",
}
_VERBS = {
    "demo": "everything on this machine: embedded Postgres, local VMs, the console in your browser",
    "serve": "the server alone, as it runs in production",
    "worker": "work on jobs in a process of its own (with jobs.in_process=false on the server)",
    "agent": "the agent, on a VM",
    "migrate": "bring the database to this version's schema, and stop",
    "admin": "the people of the console: list, invite, reset a lost password, disable, sign out",
    "deploy": "put the server on AWS: bootstrap, plan, apply, destroy",
    "rehearse": "the evening before a class: try every machine, replay the arrivals, say go or no-go",
    "bench": "measure, and print the figures as ratios to a limit of this machine",
    "swarm": "load a running server with machines and people, and judge what they saw",
    "config": "list every setting with its value, range and meaning",
    "keys": "rotate the keys that seal and sign (nobody is thrown out), or print a new one for LABLINK_KEYS",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status (2: the command line or the configuration is wrong)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["agent"]:
        from agent.main import main as run_agent

        return run_agent(arguments[1:])
    given = parse(arguments)
    try:
        if given.verb == "bench":
            from lablink_ui.bench import run_bench

            return run_bench(given.scenarios, json_file=given.json, picture=given.picture)
        if given.verb == "rehearse":
            return rehearse_cli.run_rehearse(given)
        if given.verb == "swarm":
            return swarm.run_swarm(given)
        if given.verb in {"demo", "serve"}:
            _end_when_told()
        return _with_settings(given)
    except ModuleNotFoundError as exc:
        # The plain package is the agent.
        print(
            f"lablink: {exc.name} is not installed: `lablink {given.verb}` needs this package's extra 'server', "
            "lablink[server]; a VM needs `lablink agent` alone",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, read. Ends the process with a usage message if it is wrong (argparse's habit)."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    pairs = [word for word in rest if "=" in word and not word.startswith("-")]
    # argparse stops looking for them at the first option: `deploy plan prod --file prod.yaml image_tag=1.4.0`.
    if rest and (pairs != rest or "variables" not in given):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if pairs:
        given.variables += pairs
    return given


def _find_verb(given: argparse.Namespace) -> Callable[[Settings], int]:
    verb = given.verb
    if verb == "admin":
        return admin_cli.make_runner(given)
    if verb == "deploy":
        return deploy_cli.make_runner(given)
    if verb in {"demo", "serve"}:
        from lablink_ui import main as server

        return server.run_demo if verb == "demo" else server.run_serve
    if verb == "keys":
        return _print_new_key if given.action == "new" else _rotate_keys
    if verb == "worker":
        from backend.tasks.worker import run_worker

        return run_worker
    if verb == "migrate":
        from backend.db.migrate import run_migrate

        return run_migrate
    return _print_settings


def _end_when_told() -> None:
    """Ends at once, and well, while the imports run: nothing has begun. The server takes the signals over."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def _with_settings(given: argparse.Namespace) -> int:
    from backend.errors import LabLinkError
    from backend.settings import SettingsError, load_settings

    try:
        # Before the verb's own imports, which take a second: a wrong setting is said at once.
        settings = load_settings(given.settings, file=given.config, environment=os.environ)
        # A fifth of a start was the search for garbage among modules, which all stay.
        gc.disable()
        run = _find_verb(given)
        gc.enable()
        return run(settings)
    except SettingsError as exc:
        print(f"lablink: {exc}", file=sys.stderr)
        return 2
    except LabLinkError as exc:
        print(f"lablink: {exc.message}", file=sys.stderr)
        return 1


def _rotate_keys(settings: Settings) -> int:
    from backend.errors import Conflict
    from backend.keys import rotate_keys

    if settings.secrets.keys:
        raise Conflict(
            "The keys come from LABLINK_KEYS: put a new one (`lablink keys new`) in front there, keep the others "
            "behind it, and start the server again."
        )
    count = rotate_keys(settings.home)
    print(f"There is a new key in front; what the {count - 1} before it sealed and signed stays valid.")
    print("A running server takes it up on SIGHUP, or at its next start.")
    return 0


def _print_new_key(settings: Settings) -> int:
    from backend.keys import new_key

    print(new_key())
    return 0


def _print_settings(settings: Settings) -> int:
    from backend.settings import describe_keys

    for name, _, allowed, text in describe_keys():
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        print(f"{name}={'' if value is None else value}\n    {text} ({allowed}).")
    print(f"\nData directory (LABLINK_HOME): {settings.home}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lablink",
        description="LabLink hands cloud GPU machines to researchers: launch a pool, click once, sit down.",
        epilog=f"Start here: lablink demo\n\n{_ENVIRONMENT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for verb, text in _VERBS.items():
        sub = verbs.add_parser(
            verb,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"Examples:\n{_EXAMPLES[verb]}\n\n{_SETTINGS_HELP}" if verb in _EXAMPLES else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if verb == "bench":
            sub.add_argument("scenarios", nargs="*", help="claims, heartbeats, commands, … (default: all)")
            sub.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well, as JSON")
            sub.add_argument("--picture", type=Path, metavar="FILE", help="draw them there as well, as SVG")
            sub.epilog = _BENCH_HELP
        elif verb == "rehearse":
            rehearse_cli.add_arguments(sub)
        elif verb == "swarm":
            swarm.add_arguments(sub)
        elif verb == "admin":
            admin_cli.add_verbs(sub)
        elif verb == "deploy":
            deploy_cli.add_verbs(sub)
        elif verb != "agent":
            if verb == "keys":
                sub.add_argument("action", choices=("rotate", "new"))
            sub.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as server.port=9000")
            sub.add_argument("--config", type=Path, help="a YAML file with settings")
    return parser
