"""Configuration: every key, its default, its range and what it means. Hydra composes it; secrets come from elsewhere.

Sources, the later winning: the defaults below, a YAML file, overrides on the command line (``server.port=9000``).
Secrets come only from the environment, or from a file named by the same variable with ``_FILE`` appended.
(The dataclasses are not frozen: OmegaConf reads a frozen one as read-only and could not compose it.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

TERRAFORM_VERSION = "1.11.4"
MIN_API_TOKEN = 24
_T = TypeVar("_T")


class SettingsError(Exception):
    """The configuration cannot be used; says in one line which key and what is allowed."""


def _key(
    default: _T, text: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> _T:
    meta = {"text": text, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


@dataclass
class ServerSettings:
    """The web server."""

    host: str = _key("127.0.0.1", "Address to listen on; 0.0.0.0 for all")
    port: int = _key(8080, "Port to listen on", low=1, high=65_535)
    public_url: str | None = _key(
        None, "Address under which people and VMs reach this server; default http://<host>:<port>"
    )
    body_limit_bytes: int = _key(1_000_000, "Largest request body, in bytes", low=10_000, high=100_000_000)
    session_hours: int = _key(12, "How long an admin stays signed in, in hours", low=1, high=720)
    sign_in_attempts: int = _key(10, "Failed sign-ins allowed per address within the window", low=1, high=1_000)
    sign_in_window_s: int = _key(300, "The window for failed sign-ins, in seconds", low=10, high=86_400)
    metrics: bool = _key(False, "Whether /metrics (Prometheus) is served; it needs an admin API token all the same")
    reconnect_timeout_s: int = _key(
        30, "How long a page is kept for a browser that lost its connection, in seconds", low=3, high=600
    )


@dataclass
class DatabaseSettings:
    """Postgres. Its URL is a secret: LABLINK_DATABASE_URL; without it the embedded Postgres is used."""

    pool_size: int = _key(10, "Connections kept open; as many again may be opened under load", low=2, high=200)
    statement_timeout_s: int = _key(30, "Longest statement, in seconds", low=1, high=600)


@dataclass
class AgentSettings:
    """What agents are told, and how long they may be silent."""

    heartbeat_interval_s: int = _key(20, "Seconds between heartbeats", low=1, high=300)
    unreachable_after_s: int = _key(
        50, "Seconds of silence after which a VM is shown as unreachable", low=3, high=3_600
    )


@dataclass
class PoolSettings:
    """The pool that the first start makes, and the values a new pool starts from."""

    provider: str = _key("local", "Who makes the VMs", choices=("local",))
    max: int = _key(100, "Most VMs at once", low=1, high=1_000)
    available_min: int = _key(0, "Free VMs to keep ready; 0 launches nothing by itself", low=0, high=1_000)
    price_per_hour: float = _key(0.0, "US dollars per VM and hour, for the costs shown", low=0, high=999)
    boot_deadline_s: int = _key(900, "Seconds a VM may take to become ready before it is failed", low=30, high=7_200)
    unreachable_grace_s: int = _key(
        600, "Seconds a free VM may be unreachable before it is failed", low=30, high=86_400
    )
    startup_script: str | None = _key(None, "A script (its text) that each VM runs once it boots")
    repository: str | None = _key(None, "A git repository that each VM clones, https://…")


@dataclass
class PoolsSettings:
    """Pools by name."""

    default: PoolSettings = field(default_factory=PoolSettings)


@dataclass
class TerraformSettings:
    """Terraform runs."""

    parallelism: int = _key(0, "Machines worked on at once; 0 follows the number of VMs", low=0, high=256)
    cancel_grace_s: int = _key(30, "Seconds between asking Terraform to stop and killing it", low=1, high=600)
    download: bool = _key(True, "Whether a missing Terraform is fetched (checksum verified) into the data directory")


@dataclass
class JobsSettings:
    """Background jobs."""

    in_process: bool = _key(True, "Whether the server works on jobs itself; false leaves them to `lablink worker`")
    concurrency: int = _key(4, "Jobs worked on at once by one process", low=1, high=64)


@dataclass
class LiveSettings:
    """Open pages."""

    max_hz: float = _key(10.0, "Most updates per second that a page gets", low=0.5, high=60)
    backup_poll_s: float = _key(
        15.0, "Seconds after which everything is re-read even without a notice", low=1, high=300
    )


@dataclass
class RetentionSettings:
    """How much history is kept."""

    samples_hours: int = _key(24, "Hours of chart points", low=1, high=8_760)
    log_lines_per_vm: int = _key(5_000, "Log lines of each VM", low=100, high=1_000_000)
    events_days: int = _key(365, "Days of events", low=1, high=36_500)


@dataclass
class LogSettings:
    """The server's own log."""

    level: str = _key("info", "Least severity that is written", choices=("debug", "info", "warning", "error"))
    format: str = _key("text", "text for people, json for machines", choices=("text", "json"))


@dataclass
class _Keys:
    server: ServerSettings = field(default_factory=ServerSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    pool: PoolsSettings = field(default_factory=PoolsSettings)
    terraform: TerraformSettings = field(default_factory=TerraformSettings)
    jobs: JobsSettings = field(default_factory=JobsSettings)
    live: LiveSettings = field(default_factory=LiveSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True)
class Secrets:
    """What is never written into a file of ours, a log or a page."""

    admin_password: str | None = None
    api_token: str | None = None
    database_url: str | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass
class Settings(_Keys):
    """Everything that can be set. ``home`` is the data directory."""

    home: Path = Path()
    secrets: Secrets = field(default_factory=Secrets)

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
    tree = _compose(overrides, file or (Path(named) if named else None))
    keys = cast("_Keys", OmegaConf.to_object(tree))
    for name, value, meta in _walk(keys):
        _check(name, value, meta)
    home = Path(environment.get("LABLINK_HOME") or _default_home()).expanduser().absolute()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"LABLINK_HOME: {home} cannot be used as the data directory: {exc.strerror}") from exc
    parts = {each.name: getattr(keys, each.name) for each in fields(_Keys)}
    return Settings(**parts, home=home, secrets=_read_secrets(environment))


def describe_keys() -> list[tuple[str, str, str, str]]:
    """Every key as (name, default, allowed values, meaning), for help and the README."""
    return [(name, _shown(value), _allowed(value, meta), str(meta["text"])) for name, value, meta in _walk(_Keys())]


def _compose(overrides: Sequence[str], file: Path | None) -> DictConfig:
    ConfigStore.instance().store(name="lablink", node=_Keys)
    for override in overrides:
        if not re.match(r"[a-z_.]+=", override):
            raise SettingsError(f"'{override[:80]}' is not an override; write key=value, such as server.port=9000")
        _check_grammar(override)
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parent.absolute())):
            tree = compose("lablink")
        if file is not None:
            loaded = OmegaConf.load(file)
            if not isinstance(loaded, DictConfig):
                raise SettingsError(
                    f"the configuration file {file} must hold keys and values, such as server: {{port: 9000}}"
                )
            tree = cast("DictConfig", OmegaConf.merge(tree, loaded))
        with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parent.absolute())):
            # Hydra parses the values; merging onto the file keeps the command line on top.
            given = compose("lablink", overrides=list(overrides))
        for override in overrides:
            name = override.partition("=")[0]
            OmegaConf.update(tree, name, OmegaConf.select(given, name))
    except SettingsError:
        raise
    except OSError as exc:
        raise SettingsError(f"the configuration file {file} cannot be read: {exc.strerror}") from exc
    except (HydraException, OmegaConfBaseException, ValueError) as exc:
        raise SettingsError(_explain(exc)) from exc
    except Exception as exc:  # YAML errors are of no common type
        raise SettingsError(f"the configuration file {file} is not valid YAML: {str(exc).splitlines()[0]}") from exc
    return tree


def _check_grammar(override: str) -> None:
    try:
        OverridesParser.create().parse_overrides([override])
    except (HydraException, ValueError) as exc:
        name, _, value = override.partition("=")
        raise SettingsError(f"{name}: '{value[:80]}' cannot be read; put quotes around text: {name}='…'") from exc


def _explain(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        name = getattr(cause, "full_key", None)
        if name:
            known = {key: (value, meta) for key, value, meta in _walk(_Keys())}
            if name in known:
                return f"{name} must be {_allowed(*known[name])}"
            close = [key for key in known if key.startswith(str(name).split(".")[0] + ".")]
            allowed = ", ".join(close) if close else ", ".join(sorted({key.split(".")[0] for key in known}))
            return f"{name} is not a key; allowed: {allowed}"
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(exc).split())
    match = re.search(r"[Cc]ould not override '([^']+)'", text)
    if match:
        groups = ", ".join(each.name for each in fields(_Keys))
        return f"{match[1]} is not a key; the groups are: {groups} (`lablink config` lists every key)"
    return text[:300]


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for each in fields(node):
        value = getattr(node, each.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{each.name}.")
        else:
            yield prefix + each.name, value, {**each.metadata, "type": each.type}


def _check(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    if meta["choices"] and value not in meta["choices"]:
        raise SettingsError(f"{name} must be {_allowed(value, meta)}, not '{value}'")
    if meta["low"] is not None and not meta["low"] <= value <= meta["high"]:
        raise SettingsError(f"{name} must be {_allowed(value, meta)}, not {value}")
    if name == "server.public_url" and value is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise SettingsError(f"{name} must be an http:// or https:// address, not '{value}'")


def _allowed(value: Any, meta: Mapping[str, Any]) -> str:
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    kind = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        str(meta["type"]).removesuffix(" | None"), "text"
    )
    return kind if meta["low"] is None else f"{kind} from {meta['low']:,} to {meta['high']:,}"


def _shown(value: Any) -> str:
    return (
        {None: "–", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, int | float) or isinstance(value, bool)
        else str(value)
    )


def _read_secrets(environment: Mapping[str, str]) -> Secrets:
    secrets = Secrets(
        admin_password=_read_secret(environment, "LABLINK_ADMIN_PASSWORD"),
        api_token=_read_secret(environment, "LABLINK_API_TOKEN"),
        database_url=_read_secret(environment, "LABLINK_DATABASE_URL"),
    )
    if secrets.api_token is not None and len(secrets.api_token) < MIN_API_TOKEN:
        raise SettingsError(f"LABLINK_API_TOKEN must have {MIN_API_TOKEN} characters or more")
    if secrets.database_url is not None and not secrets.database_url.startswith(
        ("postgresql://", "postgres://", "postgresql+psycopg://")
    ):
        raise SettingsError("LABLINK_DATABASE_URL must begin with postgresql://")
    return secrets


def _read_secret(environment: Mapping[str, str], name: str) -> str | None:
    path = environment.get(f"{name}_FILE")
    if not path:
        return environment.get(name) or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{name}_FILE: {path} cannot be read: {exc}") from exc


def _default_home() -> str:
    return str(Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "lablink")
