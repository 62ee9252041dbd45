"""The job worker: procrastinate runs operations and power actions, in the server's process or in `lablink worker`."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncNullConnectionPool

from backend.db.borrowed import together_in
from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.jobs import RUN_OPERATION, RUN_POWER_ACTION
from backend.db.migrate import migrate
from backend.logs import set_up_logging
from backend.provisioning.providers import Provider
from backend.provisioning.providers.aws import AwsProvider
from backend.provisioning.providers.local import LocalProvider
from backend.provisioning.steps import Worker
from backend.provisioning.terraform_binary import ensure_terraform
from backend.redaction import SHORTEST_VALUE
from backend.services.vms import get_vm_by_id, record_boot_failure
from backend.settings import Settings
from backend.spans import sending_spans, span
from backend.tasks.company import check_company, make_presence
from backend.tasks.owner import this_process
from backend.tasks.supervisor import Supervisor

HEARTBEAT_S, STALLED_S = 4, 15
END_GRACE_S = 2

logger = logging.getLogger(__name__)


async def make_worker(db: Database, settings: Settings) -> Worker:
    """What carries out operations, with Terraform found or fetched.

    Raises:
        TerraformMissing: there is none and none could be fetched.
    """
    return Worker(
        db=db,
        home=settings.home,
        binary=await ensure_terraform(settings.home, download=settings.terraform.download),
        providers=make_providers(settings),
        owner=this_process(),
        parallelism=settings.terraform.parallelism,
        grace_s=settings.terraform.cancel_grace_s,
        secrets=tuple(value for value in settings.secrets.values() if len(value) >= SHORTEST_VALUE),
    )


def make_providers(settings: Settings) -> dict[str, Provider]:
    """Every provider that can be used here, by name."""
    providers: list[Provider] = [LocalProvider(settings)]
    if settings.aws.region:
        providers.append(AwsProvider(settings))
    return {provider.name: provider for provider in providers}


async def work_on_jobs(db: Database, worker: Worker, settings: Settings) -> None:
    """Works on jobs until cancelled; what is being worked on then has a moment to end, and is broken off after it.

    Raises when Postgres goes away, but lets jobs come to their end first: Terraform needs no database to go on.
    """
    await db.until_reachable()
    jobs: set[asyncio.Task[Any]] = set()
    # A connection each time: a pool's own pauses after an absence of Postgres would keep a finished job unfinished.
    app = App(connector=PsycopgConnector(conninfo=db.conninfo, pool_factory=AsyncNullConnectionPool))

    @app.task(name=RUN_OPERATION)
    async def run_operation(operation_id: int) -> None:
        await worker.run_operation(operation_id)

    @app.task(name=RUN_POWER_ACTION)
    async def run_power_action(vm_id: int, action: str) -> None:
        await _reboot(db, worker, vm_id)

    @app.periodic(cron="0 0 1 1 *")
    @app.task(name="happy_new_year")
    async def happy_new_year(timestamp: int) -> None:
        """Makes procrastinate watch its heartbeat and its LISTEN: it stops watching where nothing is periodic."""

    async def note(do: Callable[[], Awaitable[object]], *_: object) -> object:
        job = asyncio.current_task()
        assert job is not None
        jobs.add(job)
        job.add_done_callback(jobs.discard)
        return await do()

    async with app.open_async():
        working = asyncio.ensure_future(
            app.run_worker_async(
                concurrency=settings.jobs.concurrency,
                install_signal_handlers=False,
                delete_jobs="successful",
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_S,
                worker_middleware=[note],
            )
        )
        try:
            await asyncio.shield(working)
        finally:
            working.cancel()
            await asyncio.wait({working}, timeout=END_GRACE_S)
            for job in jobs:
                job.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def _reboot(db: Database, worker: Worker, vm_id: int) -> None:
    vm = await get_vm_by_id(db, vm_id)
    try:
        with span("reboot", {"lablink.hostname": vm.hostname}):
            await worker.providers[vm.provider].reboot(vm.hostname)
    except Exception as exc:
        logger.exception("reboot of %s failed", vm.hostname)
        await record_boot_failure(db, vm_id, f"could not be booted: {exc}")


def run_worker(settings: Settings) -> int:
    """`lablink worker`: works on jobs in a process of its own until told to stop. Returns the exit status."""
    set_up_logging(settings.log, settings.secrets.values())
    with sending_spans(settings.otel.endpoint, sample_pct=settings.otel.sample_pct):
        return asyncio.run(_run_worker(settings))


async def _run_worker(settings: Settings) -> int:
    if url := settings.secrets.database_url:
        with together_in(settings.home, url):
            return await _work(settings, url)
    return await _work(settings, await EmbeddedPostgres(settings.home).start())


async def _work(settings: Settings, url: str) -> int:
    await migrate(url)
    db = Database(url, pool_size=settings.database.pool_size)
    supervisor, stop = Supervisor(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = await make_worker(db, settings)
    presence = make_presence(db.conninfo, settings, may_lead=False)
    try:
        supervisor.start("presence", presence.run)
        await presence.until_known()
        worker.check_directory = lambda: check_company(presence, db, worker.providers)
        await worker.check_directory()
        supervisor.start("jobs", lambda: work_on_jobs(db, worker, settings))
        logger.info("working on jobs as %s", worker.owner)
        await stop.wait()
        return 0
    finally:
        await supervisor.stop()
        await db.close()
