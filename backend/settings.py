"""Configuration: Hydra composes the keys of ``setting_keys``; secrets come from elsewhere.

Sources, the later winning: the defaults below, a YAML file, overrides on the command line (``server.port=9000``).
Secrets come only from the environment, or from a file named by the same variable with ``_FILE`` appended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from backend.setting_keys import Keys

TERRAFORM_VERSION = "1.11.4"
MIN_API_TOKEN = 24
SHOWN_VALUE = 80
_WEBHOOK_URL = re.compile(r"https://[^\s/@]+(/\S*)?|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/\S*)?")


class SettingsError(Exception):
    """The configuration cannot be used; says in one line which key and what is allowed."""

    def __init__(self, message: str) -> None:
        # What people typed may hold anything; what we say about it is one line all the same.
        super().__init__("".join(char if char.isprintable() else "?" for char in " ".join(message.split())))


@dataclass(frozen=True)
class Secrets:
    """What is never written into a file of ours, a log or a page."""

    admin_password: str | None = None
    api_token: str | None = None
    database_url: str | None = None
    keys: str | None = None
    oidc_client_secret: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    smtp_password: str | None = None
    metrics_token: str | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"

    def values(self) -> tuple[str, ...]:
        """Every secret there is, and the password within the database's URL: what no log may hold."""
        password = urlsplit(self.database_url).password if self.database_url else None
        keys = (self.keys or "").split(",")
        alarms = (self.webhook_url, self.webhook_secret, self.smtp_password, self.metrics_token)
        given = (
            self.admin_password,
            self.api_token,
            self.database_url,
            self.oidc_client_secret,
            password,
            *keys,
            *alarms,
        )
        return tuple(value.strip() for value in given if value and value.strip())


@dataclass
class Settings(Keys):
    """Everything that can be set. ``home`` is the data directory."""

    home: Path = Path()
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def is_loopback(self) -> bool:
        """Whether the server is for this computer alone."""
        return self.open_by is None

    @property
    def open_by(self) -> str | None:
        """The setting by which others get in, if any: a public address means that a proxy lets them in."""
        if not _is_loopback(self.server.host):
            return f"server.host={self.server.host}"
        url = self.server.public_url
        return None if url is None or _is_loopback(urlsplit(url).hostname or "") else f"server.public_url={url}"

    @property
    def public_url(self) -> str:
        """The address of this server as people and VMs use it, without a slash at its end."""
        host = "127.0.0.1" if self.server.host in {"0.0.0.0", "::"} else self.server.host
        return (self.server.public_url or f"http://{host}:{self.server.port}").rstrip("/")


def load_settings(
    overrides: Sequence[str] = (), *, file: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Composes the settings and makes the data directory (readable by its owner alone).

    Raises:
        SettingsError: a wrong key, type or range, an unreadable file, or a secret that cannot be used.
    """
    named = environment.get("LABLINK_CONFIG")
    keys = _compose(overrides, file or (Path(named) if named else None))
    for name, value, meta in _walk(keys):
        _check(name, value, meta)
    _check_together(keys)
    parts = {each.name: getattr(keys, each.name) for each in fields(Keys)}
    return Settings(**parts, secrets=_read_secrets(environment), home=_ensure_home(environment))


def describe_keys() -> list[tuple[str, str, str, str]]:
    """Every key as (name, default, allowed values, meaning), for help and the README."""
    return [(name, _shown(value), _allowed(meta), str(meta["text"])) for name, value, meta in _walk(Keys())]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _compose(overrides: Sequence[str], file: Path | None) -> Keys:
    tree = deepcopy(_defaults())
    for name, value in [*(_read_file(file) if file else ()), *map(_parse, overrides)]:
        _set(tree, name, value)
    return cast("Keys", OmegaConf.to_object(tree))


@cache
def _defaults() -> DictConfig:
    ConfigStore.instance().store(name="lablink", node=Keys)
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parent.absolute())):
        return compose("lablink")


def _parse(override: str) -> tuple[str, Any]:
    """The key and the value of an override, by Hydra's grammar."""
    name, separator, value = override.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise SettingsError(f"'{override[:SHOWN_VALUE]}' is not an override; write key=value, such as server.port=9000")
    try:
        parsed = OverridesParser.create().parse_override(f"_={value}")
        is_single = not parsed.is_sweep_override()
    except (HydraException, ValueError, RecursionError):
        is_single = False
    if not is_single:
        shown = value[:SHOWN_VALUE]
        raise SettingsError(f"{name}: '{shown}' cannot be read as one value; put quotes around text: {name}='…'")
    return name, parsed.value()


def _read_file(file: Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of a YAML file."""
    try:
        # OmegaConf's loader is a safe one that also refuses a key given twice.
        loaded = yaml.load(file.read_text(encoding="utf-8"), Loader=get_yaml_loader())  # noqa: S506
    except OSError as exc:
        raise SettingsError(f"the configuration file {file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"the configuration file {file} cannot be read: it is not UTF-8 text") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise SettingsError(f"the configuration file {file} is not valid YAML: {_yaml_problem(exc)}") from exc
    if not isinstance(loaded, dict | None):
        raise SettingsError(f"the configuration file {file} must hold keys and values, such as server: {{port: 9000}}")
    yield from _flatten(loaded or {})


def _yaml_problem(exc: BaseException) -> str:
    mark = getattr(exc, "problem_mark", None)
    return f"line {mark.line + 1}: {getattr(exc, 'problem', '')}" if mark else str(exc)[:200]


def _flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    groups = {name.rpartition(".")[0] for name in _known()} | set(_group_names())
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name in groups and isinstance(value, dict | None):
            # A group whose keys are all commented out is an empty one.
            yield from _flatten(value or {}, f"{name}.")
        else:
            yield name, value


def _set(tree: DictConfig, name: str, value: Any) -> None:
    known = _known()
    if name not in known:
        raise SettingsError(_explain_unknown(name, known))
    try:
        OmegaConf.update(tree, name, _as_typed(value, str(known[name]["type"])), merge=False)
    except (OmegaConfBaseException, ValueError, TypeError) as exc:
        raise SettingsError(f"{name} must be {_allowed(known[name])}, not '{str(value)[:SHOWN_VALUE]}'") from exc


def _as_typed(value: Any, kind: str) -> Any:
    if not kind.startswith("list"):
        return _literal(value, is_text=kind.startswith("str"))
    # One value is a list of one.
    return [_literal(str(each), is_text=True) for each in (value if isinstance(value, list) else [value])]


def _literal(value: Any, *, is_text: bool) -> Any:
    """The value as it was written: ``${…}`` in a script is the shell's, not OmegaConf's."""
    if not isinstance(value, str):
        return value
    if value == "???" or ("${" in value and not is_text):
        raise ValueError(value)
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)


def _explain_unknown(name: str, known: Mapping[str, Any]) -> str:
    within = [key for key in known if key.startswith(f"{name}.")]
    if within:
        return f"{name} is a group of keys; set one of: {', '.join(within)}"
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    beside = [key for key in known if key.startswith(name.partition(".")[0] + ".")]
    allowed = ", ".join(beside) if beside else f"the groups {', '.join(_group_names())}"
    return f"{name[:SHOWN_VALUE]} is not a key; {hint}allowed: {allowed} (`lablink config` lists every key)"


def _known() -> dict[str, Mapping[str, Any]]:
    return {name: meta for name, _, meta in _walk(Keys())}


def _group_names() -> list[str]:
    return [each.name for each in fields(Keys)]


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for each in fields(node):
        value = getattr(node, each.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{each.name}.")
        else:
            yield prefix + each.name, value, {**each.metadata, "type": each.type}


def _check(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    if isinstance(value, list):
        for each in value:
            _check(name, each, meta)
        return
    if value is None:
        return
    is_right = not isinstance(value, str) or _is_storable(value)
    if meta["choices"]:
        is_right = value in meta["choices"]
    elif meta["low"] is not None:
        is_right = meta["low"] <= value <= meta["high"]
    elif meta["form"]:
        is_right = is_right and re.fullmatch(meta["form"][0], value) is not None
    if not is_right:
        raise SettingsError(f"{name} must be {_allowed(meta)}, not '{str(value)[:SHOWN_VALUE]}'")


def _is_storable(value: str) -> bool:
    """Whether Postgres can hold this text."""
    return "\x00" not in value and value == value.encode(errors="replace").decode()


def _check_together(keys: Keys) -> None:
    """What is right by itself may be wrong beside another key."""
    interval_s, first = keys.agent.heartbeat_interval_s, keys.pool.default
    if keys.agent.unreachable_after_s <= interval_s:
        raise SettingsError(f"agent.unreachable_after_s must be more than agent.heartbeat_interval_s, {interval_s}")
    if first.available_min > first.max:
        raise SettingsError(f"pool.default.available_min must be at most pool.default.max, {first.max}")
    if first.provider == "aws" and keys.aws.region is None:
        raise SettingsError("aws.region must be set for pool.default.provider=aws")
    if first.aws.subnet_ids and (first.aws.zones or first.aws.vpc_id is None):
        raise SettingsError("pool.default.aws.subnet_ids goes with pool.default.aws.vpc_id, and not with zones")
    if (keys.oidc.issuer is None) != (keys.oidc.client_id is None):
        raise SettingsError("oidc.issuer and oidc.client_id must be set together")
    alarms = keys.alarms
    if alarms.smtp_host is not None and not (alarms.email_to and alarms.email_from):
        raise SettingsError("alarms.smtp_host goes with alarms.email_to and alarms.email_from")
    if alarms.smtp_host is not None and alarms.smtp_security == "none" and not _is_loopback(alarms.smtp_host):
        raise SettingsError("alarms.smtp_security=none is for a mail server on this computer; use starttls or tls")
    for network in keys.server.trusted_proxies:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise SettingsError(f"server.trusted_proxies: '{network}' is not an address or a network") from None


def _allowed(meta: Mapping[str, Any]) -> str:
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    if meta["form"]:
        return str(meta["form"][1])
    kind = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        str(meta["type"]).removesuffix(" | None"), "text"
    )
    return kind if meta["low"] is None else f"{kind} from {meta['low']:,} to {meta['high']:,}"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "–"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_secrets(environment: Mapping[str, str]) -> Secrets:
    secrets = Secrets(
        admin_password=read_secret(environment, "LABLINK_ADMIN_PASSWORD"),
        api_token=read_secret(environment, "LABLINK_API_TOKEN"),
        database_url=read_secret(environment, "LABLINK_DATABASE_URL"),
        keys=read_secret(environment, "LABLINK_KEYS"),
        oidc_client_secret=read_secret(environment, "LABLINK_OIDC_CLIENT_SECRET"),
        webhook_url=read_secret(environment, "LABLINK_WEBHOOK_URL"),
        webhook_secret=read_secret(environment, "LABLINK_WEBHOOK_SECRET"),
        smtp_password=read_secret(environment, "LABLINK_SMTP_PASSWORD"),
        metrics_token=read_secret(environment, "LABLINK_METRICS_TOKEN"),
    )
    for name, token in (("API", secrets.api_token), ("METRICS", secrets.metrics_token)):
        if token is not None and len(token) < MIN_API_TOKEN:
            raise SettingsError(f"LABLINK_{name}_TOKEN must have {MIN_API_TOKEN} characters or more")
    if secrets.webhook_url is not None and not _WEBHOOK_URL.fullmatch(secrets.webhook_url):
        raise SettingsError("LABLINK_WEBHOOK_URL must be an https:// address (http:// on this computer alone)")
    if secrets.database_url is not None and not secrets.database_url.startswith(
        ("postgresql://", "postgres://", "postgresql+psycopg://")
    ):
        raise SettingsError("LABLINK_DATABASE_URL must begin with postgresql://")
    return secrets


def read_secret(environment: Mapping[str, str], name: str) -> str | None:
    """A secret of this name, or of the file that name_FILE names.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = environment.get(f"{name}_FILE")
    if not path:
        return environment.get(name) or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{name}_FILE: {path} cannot be read: {exc}") from exc


def _ensure_home(environment: Mapping[str, str]) -> Path:
    default = Path(environment.get("XDG_DATA_HOME") or "~/.local/share") / "lablink"
    home = Path(environment.get("LABLINK_HOME") or default)
    try:
        home = home.expanduser().absolute()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise SettingsError(f"LABLINK_HOME: {home} cannot be used as the data directory: {why}") from exc
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"LABLINK_HOME: {home} cannot be used as the data directory: it is not writable")
    return home
