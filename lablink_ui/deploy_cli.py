"""`lablink deploy`: puts the server on AWS, changes it and takes it away, each with a preview and a typed word."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.provisioning.deployment import Change, Deployment
    from backend.provisioning.deployment_aws import Account
    from backend.provisioning.output import OutputLine
    from backend.settings import Settings

# As in backend.provisioning.deployment, whose imports wait until they are needed.
_ENVIRONMENTS = ("dev", "test", "prod")
_VERBS = {
    "bootstrap": "make the bucket for Terraform's state (test and prod; dev keeps its own on this computer)",
    "plan": "show what an apply would change, and change nothing",
    "apply": "make the server's host, or bring it to what is asked for",
    "destroy": "take it all away, but for the backups and the secret that opens them",
}
HELP = """\
Examples:
  lablink deploy bootstrap prod region=us-east-1
  lablink deploy plan prod --file prod.yaml image_tag=1.4.0
  lablink deploy apply prod --file prod.yaml image_tag=1.4.0
  lablink deploy destroy prod

Variables (terraform/allocator/variables.tf says what each means) come from a YAML file and from key=value, which wins.
Credentials and the region come from the environment, as for every AWS tool. docs/deployment.md tells the whole story.
"""


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Adds `bootstrap`, `plan` and so on below `lablink deploy`."""
    parser.epilog = HELP
    verbs = parser.add_subparsers(dest="deploy_verb", required=True, metavar="what")
    for verb, words in _VERBS.items():
        sub = verbs.add_parser(verb, help=words, description=words[0].upper() + words[1:] + ".")
        sub.add_argument("environment", choices=_ENVIRONMENTS)
        sub.add_argument("variables", nargs="*", metavar="key=value", help="variables, such as image_tag=1.4.0")
        sub.add_argument("--file", type=Path, help="a YAML file with variables")
        if verb == "plan":
            sub.add_argument("--json", type=Path, metavar="FILE", help="write the plan there as well, as JSON")
        if verb in {"apply", "destroy"}:
            sub.add_argument("--confirm", metavar="WORD", help="the word that would be asked for")
            sub.add_argument("--yes", action="store_true", help="ask nothing (for pipelines)")
        if verb == "apply":
            sub.add_argument("--allow-loss", action="store_true", help="let it replace what holds data")
        if verb == "destroy":
            sub.add_argument("--with-backups", action="store_true", help="destroy the backups and the secret as well")
    parser.set_defaults(settings=[], config=None)


def make_runner(given: argparse.Namespace) -> Callable[[Settings], int]:
    """What was asked for, to be run with the settings. Returns the exit status."""
    return lambda settings: asyncio.run(_run(given, settings))


async def _run(given: argparse.Namespace, settings: Settings) -> int:
    from backend.provisioning.deployment import OLDEST_TERRAFORM, Deployment
    from backend.provisioning.deployment_aws import Account
    from backend.provisioning.terraform_binary import ensure_terraform

    variables = read_variables(given.variables, given.file)
    account = Account(_find_region(variables))
    print(f"Account {await asyncio.to_thread(account.check)}, {account.region}, environment {given.environment}.")
    if given.deploy_verb == "bootstrap":
        return await _bootstrap(given.environment, account)
    binary = await ensure_terraform(settings.home, download=settings.terraform.download, oldest=OLDEST_TERRAFORM)
    deployment = Deployment(given.environment, variables, settings.home, binary, account, on_line=_print_line)
    await deployment.open()
    return await _ACTS[given.deploy_verb](given, deployment)


async def _bootstrap(environment: str, account: Account) -> int:
    if environment == "dev":
        print("dev keeps its state on this computer: nothing to make.")
        return 0
    name = await asyncio.to_thread(account.ensure_state_bucket, environment)
    print(f"The state's bucket is ready: {name}")
    return 0


async def _plan(given: argparse.Namespace, deployment: Deployment) -> int:
    changes = await deployment.plan()
    if given.json:
        given.json.write_text(json.dumps(await deployment.show_plan()), encoding="utf-8")
    _print_changes(changes)
    return 0


async def _apply(given: argparse.Namespace, deployment: Deployment) -> int:
    from backend.errors import Conflict

    changes = await deployment.plan()
    _print_changes(changes)
    losses = [each.address for each in changes if each.is_loss]
    if losses and not given.allow_loss:
        raise Conflict(
            f"Refused: {', '.join(losses)} would be made anew, and what it holds would be lost. Back up first "
            "(docs/deployment.md), then say --allow-loss."
        )
    if changes and not _is_confirmed(given, given.environment):
        return 1
    for name, value in (await deployment.apply()).items():
        print(f"  {name:<14} {value}")
    return 0


async def _destroy(given: argparse.Namespace, deployment: Deployment) -> int:
    changes = await deployment.plan_destroy(with_backups=given.with_backups)
    _print_changes(changes)
    if any(each.sign == "=" for each in changes):
        print("= is kept: the next apply takes it in again.")
    print("Machines that the server launched go on, and cost: destroy its pools first.")
    if changes and not _is_confirmed(given, f"destroy {given.environment}"):
        return 1
    await deployment.destroy(with_backups=given.with_backups)
    print(f"{given.environment} is gone.")
    return 0


def read_variables(given: Sequence[str], file: Path | None) -> dict[str, Any]:
    """The variables of the file and of the command line, which wins.

    Raises:
        SettingsError: either cannot be read.
    """
    import yaml  # type: ignore[import-untyped]

    from backend.settings import SettingsError

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
        pairs = [one.partition("=") for one in given]
        # Terraform itself makes numbers and truth of text; only lists and maps need to be told.
        typed = {name: yaml.safe_load(value) if value[:1] in {"[", "{"} else value for name, _, value in pairs}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise SettingsError(f"the variables cannot be read: {exc}") from exc
    if not isinstance(loaded, dict | None):
        raise SettingsError(f"{file} must hold keys and values, such as domain: lablink.example.org")
    wrong = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if wrong:
        raise SettingsError(f"'{wrong[0]}' is no variable; write key=value, such as image_tag=1.4.0")
    return {**(loaded or {}), **typed}


def _find_region(variables: dict[str, Any]) -> str:
    from backend.settings import SettingsError

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = variables.pop("region", None) or named
    if not region:
        raise SettingsError("which region? Write region=us-east-1, or set AWS_REGION")
    return str(region)


def _print_line(line: OutputLine) -> None:
    # What is made and ended, and how that went; not what is merely looked at.
    if (
        line.is_error
        or (" complete after " in line.message and "Refresh" not in line.message)
        or _STILL in line.message
    ):
        print(f"  {line.message}", flush=True)


def _print_changes(changes: Sequence[Change]) -> None:
    for each in changes:
        print(f"  {each.sign:>3} {each.address}")
    counts = {word: sum(each.sign in signs for each in changes) for word, signs in _COUNTED.items()}
    print(", ".join(f"{number} to {word}" for word, number in counts.items()) if changes else "Nothing to change.")


def _is_confirmed(given: argparse.Namespace, word: str) -> bool:
    """Whether the person typed the very word."""
    if given.yes:
        return True
    typed = given.confirm
    if typed is None:
        print(f"Type “{word}” to go on: ", end="", flush=True)
        typed = sys.stdin.readline().strip()
    if typed == word:
        return True
    print("Nothing was changed.")
    return False


_STILL = ": Still "
_COUNTED: Mapping[str, Sequence[str]] = {
    "make": ("+",),
    "change": ("~",),
    "make anew": ("-/+",),
    "destroy": ("-",),
    "keep": ("=",),
}
_ACTS: Mapping[str, Callable[[argparse.Namespace, Deployment], Awaitable[int]]] = {
    "plan": _plan,
    "apply": _apply,
    "destroy": _destroy,
}
