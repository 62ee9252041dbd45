from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, Unauthenticated
from backend.services.claims import release_vms, request_claim
from backend.services.enrolments import announce_boot, authenticate_agent, create_enrolments
from backend.services.heartbeats import record_heartbeats
from backend.services.history import DAY, HOUR, MONTH, average_samples, list_samples
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.retention import remove_old
from backend.services.vms import fail_overdue_vms, get_vm, record_silence, request_reboot, request_repair
from backend.states import Health, Phase
from tests.services.worlds import ADMIN, make_machines, obey, status_of


async def enrol(db: Database, hostname: str = "own-1", token: str | None = None, boot_id: str = "boot-1"):
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    token = token or (await create_enrolments(db, "lab", 1, actor=ADMIN))[0]
    return token, await announce_boot(db, token, hostname=hostname, boot_id=boot_id, agent_version="1")


async def test_a_machine_becomes_available_with_its_first_ready_and_healthy_heartbeat(db: Database) -> None:
    await make_machines(db, 1)
    assert await status_of(db, "lab-m0") == "available"
    assert (await get_vm(db, "lab-m0")).cpu_pct == 1.0


@pytest.mark.parametrize(
    "changes", [{"phase": Phase.PREPARING}, {"health": Health.DEGRADED}, {"health": Health.UNHEALTHY}]
)
async def test_a_machine_that_is_not_ready_and_healthy_is_not_offered(db: Database, changes: dict) -> None:
    from tests.services.worlds import report

    _, enrolled = await enrol(db)
    agent = await authenticate_agent(db, enrolled.agent_token)
    await record_heartbeats(db, [report(db, agent.vm_id, agent.enrolment_id, **changes)])
    assert await status_of(db, "own-1") == "booting"


async def test_plain_heartbeats_send_no_notice_and_changes_do(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    async with await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as listener:
        await listener.execute("LISTEN lablink")
        await record_heartbeats(db, [replace(machine, at=db.now(), cpu_pct=55.0)])
        assert [each async for each in listener.notifies(timeout=0.3)] == []
        await record_heartbeats(db, [replace(machine, at=db.now(), health=Health.DEGRADED, reasons=("hot",))])
        heard = [each.payload async for each in listener.notifies(timeout=0.3)]
    assert any('"vms"' in payload for payload in heard)


async def test_an_enrolment_token_may_ask_again_until_the_first_heartbeat(db: Database) -> None:
    from tests.services.worlds import report

    token, first = await enrol(db)
    _, second = await enrol(db, token=token)
    with pytest.raises(Unauthenticated):
        await authenticate_agent(db, first.agent_token)
    agent = await authenticate_agent(db, second.agent_token)
    await record_heartbeats(db, [report(db, agent.vm_id, agent.enrolment_id)])
    with pytest.raises(Unauthenticated):
        await enrol(db, token=token)


@pytest.mark.parametrize(("hostname", "boot_id"), [("own-2", "boot-1"), ("own-1", "boot-2")])
async def test_a_used_enrolment_token_serves_no_other_machine_and_no_other_boot(
    db: Database, hostname: str, boot_id: str
) -> None:
    token, _ = await enrol(db)
    with pytest.raises(Unauthenticated):
        await enrol(db, hostname, token, boot_id)


async def test_a_second_machine_of_the_same_name_is_refused(db: Database) -> None:
    await enrol(db)
    with pytest.raises(Conflict):
        await enrol(db)


@pytest.mark.parametrize("hostname", ["", "a'b", "a\nb", "UPPER", "-a", "a-", "a" * 64, "ä", "a.b", "../etc"])
async def test_a_hostname_that_is_no_dns_label_is_refused(db: Database, hostname: str) -> None:
    with pytest.raises(InvalidInput):
        await enrol(db, hostname)


async def test_an_expired_enrolment_token_is_refused(db: Database, clock) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    (token,) = await create_enrolments(db, "lab", 1, actor=ADMIN)
    clock.advance(25 * 3600)
    with pytest.raises(Unauthenticated):
        await enrol(db, token=token)


async def test_a_silent_machine_is_unreachable_then_failed_and_heals_by_itself(db: Database, clock) -> None:
    (machine,) = await make_machines(db, 1)
    clock.advance(60)
    assert await record_silence(db, after_s=50) == 1
    assert (await get_vm(db, "lab-m0")).unreachable_since is not None
    assert await status_of(db, "lab-m0") == "available"
    clock.advance(700)
    assert await fail_overdue_vms(db) == 1
    assert await status_of(db, "lab-m0") == "failed"
    await record_heartbeats(db, [replace(machine, at=db.now())])
    vm = await get_vm(db, "lab-m0")
    assert (str(vm.status), vm.unreachable_since) == ("available", None)


async def test_a_machine_that_never_reports_is_failed_after_its_boot_deadline(db: Database, clock) -> None:
    await enrol(db)
    clock.advance(1_000)
    assert await fail_overdue_vms(db) == 1
    assert "never reported" in str((await get_vm(db, "own-1")).reason)


async def test_after_a_reboot_was_asked_for_heartbeats_of_the_former_boot_do_not_count(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    assert await request_reboot(db, ["lab-m0"], actor=ADMIN) == ["lab-m0"]
    await record_heartbeats(db, [replace(machine, at=db.now())])
    assert await status_of(db, "lab-m0") == "booting"


async def test_only_what_is_broken_can_be_repaired(db: Database) -> None:
    await make_machines(db, 1)
    with pytest.raises(Conflict):
        await request_repair(db, ["lab-m0"], actor=ADMIN)


async def test_a_machine_that_falls_silent_while_it_is_cleaned_can_be_repaired_and_cleans_first(
    db: Database, clock
) -> None:
    (machine,) = await make_machines(db, 1)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=None)
    await obey(db, machine.vm_id)
    await release_vms(db, ["lab-m0"], actor=ADMIN)
    clock.advance(60)
    await record_silence(db, after_s=50)
    assert await status_of(db, "lab-m0") == "cleaning"
    assert await request_repair(db, ["lab-m0"], actor=ADMIN) == ["lab-m0"]
    assert await status_of(db, "lab-m0") == "booting"
    assert "end_session" in await obey(db, machine.vm_id)


async def test_the_table_vms_reads_as_the_former_systems_did(db: Database) -> None:
    await make_machines(db, 1)
    async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
        row = await connection.execute(
            "SELECT id, hostname, email, status, crd_command, created_at, updated_at FROM vms"
        )
        assert (await row.fetchone())[1:5] == ("lab-m0", None, "available", None)
        names = await connection.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'vms'::regclass AND NOT tgisinternal"
        )
        assert {name for (name,) in await names.fetchall()} == {
            "notify_vm_insert",
            "notify_vm_update",
            "notify_vm_delete",
        }


async def test_old_samples_are_removed_and_their_averages_stay_for_longer(db: Database, clock) -> None:
    (machine,) = await make_machines(db, 1)

    async def rows_of(table: str) -> list[tuple[object, ...]]:
        async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
            found = await connection.execute(f"SELECT cpu_pct, gpu_pct FROM {table} ORDER BY at")  # type: ignore[arg-type]
            return await found.fetchall()

    async def clean() -> None:
        await remove_old(db, samples_hours=24, averages_days=30, log_days=30, events_days=365)

    for cpu_pct in (10.0, 30.0, 50.0):
        clock.advance(20)
        gpu = {"index": 0, "utilisation_pct": 2 * cpu_pct}
        await record_heartbeats(db, [replace(machine, at=db.now(), cpu_pct=cpu_pct, gpus=(gpu,))])
    assert [each.cpu_pct for each in await list_samples(db, machine.vm_id, HOUR)][-1] == 50
    clock.advance(700)
    await average_samples(db)
    assert await average_samples(db) == 0
    averages = await rows_of("health_averages")
    assert 1 <= len(averages) <= 2
    clock.advance(25 * 3600)
    await record_heartbeats(db, [replace(machine, at=db.now())])
    await clean()
    assert await rows_of("health_samples") == [(1, None)]
    assert len(await list_samples(db, machine.vm_id, DAY)) == 1
    assert await rows_of("health_averages") == averages
    assert all(1 <= each.cpu_pct <= 50 for each in await list_samples(db, machine.vm_id, MONTH))
    clock.advance(30 * 86_400)
    await clean()
    assert await rows_of("health_averages") == []


async def test_figures_too_small_or_too_large_to_be_kept_are_kept_as_what_they_mean(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    gpu = {"index": 0, "utilisation_pct": 1e-300, "temperature_c": 1e-300} | {
        "memory_used_mb": 1e12,
        "memory_total_mb": 1e-300,
    }
    await record_heartbeats(db, [replace(machine, at=db.now(), cpu_pct=2.2e-311, gpus=(gpu,))])
    last = (await list_samples(db, machine.vm_id, HOUR))[-1]
    assert (last.gpu_pct, last.gpu_memory_pct, last.gpu_temperature_c) == (0, 100, 0)


async def test_a_report_that_another_process_overtook_changes_nothing(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    former = replace(machine, at=db.now())
    await record_heartbeats(db, [replace(machine, at=db.now(), health=Health.UNHEALTHY, reasons=("GPU lost",))])
    await record_heartbeats(db, [former])
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.health) == ("failed", Health.UNHEALTHY)
