"""Everything behind the pages, opened once for each server process and closed in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from importlib.metadata import version

from backend.db.borrowed import alone_in, together_in
from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.db.notices import NoticeListener
from backend.db.presence import Presence
from backend.errors import LabLinkError
from backend.keys import KeyRing, load_keys
from backend.live.admin_pages import AdminPages
from backend.live.agent_tokens import AgentTokens
from backend.live.command_waits import CommandWaits
from backend.live.heartbeat_buffer import HeartbeatBuffer
from backend.live.log_buffer import LogBuffer
from backend.live.read_model import ReadModel
from backend.live.shared import SharedReadings
from backend.live.terminals import Terminals
from backend.oidc import Provider as OidcProvider
from backend.provisioning.checks import Check, problem
from backend.provisioning.providers import Provider
from backend.services.actor import Actor
from backend.services.aws_spec import AwsSpec
from backend.services.health_limits import HealthLimits
from backend.services.local_terminals import check_host
from backend.services.pools import PoolSpec, ensure_pool, get_pool, list_pools
from backend.services.sign_in import ensure_api_token, ensure_first_admin
from backend.services.throttles import Throttle
from backend.services.vm_logs import LogBounds
from backend.services.vms import list_terraform_hostnames
from backend.setting_keys import RetentionSettings
from backend.settings import Settings
from backend.tasks.company import check_company, make_presence
from backend.tasks.reconcile import PRICES_EVERY_S, Reconciler
from backend.tasks.server_watch import ServerWatch
from backend.tasks.supervisor import Supervisor
from backend.tasks.sweeps import Sweeps
from backend.tasks.worker import make_providers, make_worker, work_on_jobs

FIRST_POOL = "default"
READY_S = 20

logger = logging.getLogger(__name__)


@dataclass
class House:
    """One process's parts. ``new_password`` is set when the first admin's password had to be generated."""

    settings: Settings
    db: Database
    listener: NoticeListener
    presence: Presence
    live: ReadModel
    heartbeats: HeartbeatBuffer
    logs: LogBuffer
    admin_pages: AdminPages
    agent_tokens: AgentTokens
    commands: CommandWaits
    terminals: Terminals
    supervisor: Supervisor
    watch: ServerWatch
    providers: dict[str, Provider]
    reconciler: Reconciler
    throttle: Throttle
    keys: KeyRing
    oidc: OidcProvider | None
    new_password: str | None = None
    is_demo: bool = False
    is_draining: bool = False
    running: set[int] = field(default_factory=set)
    shared: SharedReadings = field(default_factory=SharedReadings)

    @property
    def pool_defaults(self) -> PoolSpec:
        """What a new pool starts from."""
        first = self.settings.pool.default
        figures = {each.name: getattr(first, each.name) for each in fields(first)}
        figures["aws"] = AwsSpec.of(vars(first.aws))
        return PoolSpec(providers=tuple(self.providers), is_loopback=self.settings.is_loopback, **figures)

    def reload_keys(self) -> None:
        """Takes up keys that `lablink keys rotate` made; what the former ones sealed and signed stays valid.

        Raises:
            UnusableKey: they cannot be used; the former ones stay.
        """
        self.keys.take_over(load_keys(self.settings.home, self.settings.secrets.keys))

    async def preflight(self, pool_name: str, count: int) -> list[Check]:
        """How things stand for a launch of ``count`` VMs.

        Raises:
            NotFound: no such pool.
        """
        pool = await get_pool(self.db, pool_name)
        provider = self.providers.get(pool.provider)
        if provider is None:
            remedy = f"Set up {pool.provider} in the server's settings."
            return [problem("Provider", f"This server has no provider {pool.provider}.", remedy)]
        return await provider.facts.preflight(pool, count)

    async def power_on(self) -> None:
        """Switches on what the last `lablink demo` switched off."""
        for name, provider in self.providers.items():
            with _told(f"machines of provider {name} could not be switched on"):
                await provider.power_on(await list_terraform_hostnames(self.db, name))

    async def power_off(self) -> None:
        """Switches every VM off, so that nothing lingers on a laptop, and nothing costs while nobody can use it."""
        for name, provider in self.providers.items():
            with _told(f"machines of provider {name} could not be switched off"):
                await provider.power_off(await list_terraform_hostnames(self.db, name))


@asynccontextmanager
async def open_house(settings: Settings, *, is_demo: bool = False) -> AsyncIterator[House]:
    """Starts Postgres if it is ours, migrates, starts every task; the other way round at the end.

    Raises:
        LabLinkError: something needed is missing; the message says what.
    """
    # With a Postgres elsewhere several servers may share the data directory: Postgres coordinates them.
    url = None if is_demo else settings.secrets.database_url
    with together_in(settings.home, url) if url else alone_in(settings.home):
        async with _open(settings, is_demo=is_demo) as house:
            yield house


@asynccontextmanager
async def _open(settings: Settings, *, is_demo: bool) -> AsyncIterator[House]:
    embedded = None if settings.secrets.database_url else EmbeddedPostgres(settings.home)
    try:
        url = await embedded.start() if embedded else settings.secrets.database_url
        assert url is not None
        await migrate(url)
        house = _build(settings, url, is_demo=is_demo)
        try:
            if embedded:
                house.supervisor.start("postgres", embedded.keep_running)
            await _start(house)
            yield house
        finally:
            house.commands.close()
            await house.supervisor.stop()
            if is_demo:
                await house.power_off()
            await house.db.close()
    finally:
        if embedded:
            await embedded.stop()


def _build(settings: Settings, url: str, *, is_demo: bool) -> House:
    db = Database(url, pool_size=settings.database.pool_size, statement_timeout_s=settings.database.statement_timeout_s)
    listener = NoticeListener(db.conninfo)
    server, live = settings.server, settings.live
    agent_tokens = AgentTokens(db, listener)
    providers = make_providers(settings)
    keys = load_keys(settings.home, settings.secrets.keys)
    presence = make_presence(db.conninfo, settings, keys)
    read_model = ReadModel(db, listener, max_hz=live.max_hz, backup_poll_s=live.backup_poll_s)
    return House(
        settings=settings,
        db=db,
        listener=listener,
        presence=presence,
        live=read_model,
        heartbeats=HeartbeatBuffer(db, HealthLimits.of(settings.health, agent_version=version("lablink"))),
        logs=LogBuffer(db, log_bounds(settings.retention), settings.secrets.values()),
        admin_pages=AdminPages(db, read_model),
        agent_tokens=agent_tokens,
        commands=CommandWaits(db, listener),
        terminals=Terminals(db, listener, agent_tokens.authenticate),
        supervisor=Supervisor(),
        watch=ServerWatch(listener, settings),
        providers=providers,
        reconciler=Reconciler(db, providers, read_model),
        throttle=Throttle(server.sign_in_attempts, server.sign_in_window_s),
        keys=keys,
        oidc=OidcProvider(settings.oidc, settings.secrets.oidc_client_secret) if settings.oidc.issuer else None,
        is_demo=is_demo,
    )


def log_bounds(kept: RetentionSettings) -> LogBounds:
    """How much of each source of a machine's log is kept."""
    return LogBounds(kept.log_head_kb * 1_024, kept.log_tail_kb * 1_024)


async def _start(house: House) -> None:
    db, settings, start = house.db, house.settings, house.supervisor.start
    pools = await list_pools(db)
    makes_first = house.is_demo or not pools
    if settings.open_by is not None:
        is_new = makes_first and all(pool.name != FIRST_POOL for pool in pools)
        check_host(settings.open_by, pools, house.pool_defaults if is_new else None)
    start("presence", house.presence.run)
    await house.presence.until_known()
    await check_company(house.presence, db, house.providers)
    house.new_password = await ensure_first_admin(db, settings.secrets.admin_password)
    if settings.secrets.api_token:
        await ensure_api_token(db, settings.secrets.api_token)
    if makes_first:
        await ensure_pool(db, FIRST_POOL, house.pool_defaults, actor=Actor.rule("first_start"))
    house.listener.subscribe(on_gap=house.heartbeats.forget)
    start("notices", house.listener.run)
    start("live pages", house.live.run)
    start("admin pages", house.admin_pages.run)
    start("heartbeats", house.heartbeats.run)
    start("logs", house.logs.run)
    start("terminals", house.terminals.run)
    await _until_listening(house)
    await house.live.refresh()
    if settings.jobs.in_process:
        worker = await make_worker(db, settings)
        worker.check_directory = lambda: check_company(house.presence, db, house.providers)
        house.running = worker.running
        start("jobs", lambda: work_on_jobs(db, worker, settings))
    await _tidy_up(house)
    start("reconcile", house.presence.leading(house.reconciler.run))
    house.supervisor.start_every("prices", PRICES_EVERY_S, house.presence.leading(house.reconciler.read_prices))
    Sweeps(db, house.listener, settings, house.running, house.watch, house.presence).start(house.supervisor)


async def _tidy_up(house: House) -> None:
    """After a crash a machine may run that no row knows; after a `demo` all of them are off."""
    for name, provider in house.providers.items():
        strangers = await provider.remove_strangers(await list_terraform_hostnames(house.db, name))
        if strangers:
            logger.warning("removed what ran here but no row knew: %s", ", ".join(strangers))
    if house.is_demo:
        await house.power_on()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """A start or an end does not fail because something outside cannot be reached."""
    try:
        yield
    except LabLinkError as exc:
        logger.warning("%s: %s", what, exc.message)


async def _until_listening(house: House) -> None:
    async with asyncio.timeout(READY_S):
        while not house.listener.connected:
            await asyncio.sleep(0.01)
