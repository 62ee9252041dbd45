from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from backend.db.engine import Database
from backend.errors import InvalidInput, Unavailable
from backend.live import log_buffer
from backend.live.log_buffer import LogBuffer
from backend.models import Operation, OperationLog, Vm, VmLog
from backend.services import retention
from backend.services.log_text import MAX_LINE, level_of, tidy
from backend.services.operation_logs import iterate_operation_log, list_operation_log, list_terraform_lines
from backend.services.operations import request_launch
from backend.services.retention import remove_old
from backend.services.runs import LogLine, record_log
from backend.services.vm_logs import (
    MAX_SOURCES,
    SLACK,
    LogBatch,
    LogBounds,
    LogCursor,
    iterate_vm_log,
    list_vm_log,
    record_vm_log,
    record_vm_logs,
)
from backend.services.vms import get_vm
from tests.conftest import Clock
from tests.services.worlds import ADMIN, count_statements, make_machines

KEY = ["-----BEGIN RSA PRIVATE KEY-----", "A" * 64, "B" * 64, "Cd==", "-----END RSA PRIVATE KEY-----"]


async def make_one(db: Database) -> int:
    (machine,) = await make_machines(db, 1)
    return machine.vm_id


def batch(vm_id: int, first: int, count: int, *, stream: str = "s1", **others: Any) -> LogBatch:
    """Lines that say their numbers."""
    lines = [f"line {number}" for number in range(first, first + count)]
    return LogBatch(vm_id, "workload", lines, stream=stream, first_seq=first, **others)


async def said(db: Database, vm_id: int) -> list[str]:
    return [line.message for line in await list_vm_log(db, vm_id)]


async def test_what_an_agent_sends_again_is_kept_once_and_what_it_left_out_is_told(db: Database) -> None:
    vm_id = await make_one(db)
    await record_vm_logs(db, [batch(vm_id, 1, 3)])
    # The answer was lost: the same again, and again with more behind it.
    await record_vm_logs(db, [batch(vm_id, 1, 3)])
    await record_vm_logs(db, [batch(vm_id, 2, 4), batch(vm_id, 4, 2)])
    await record_vm_logs(db, [batch(vm_id, 12_351, 1)])
    assert await said(db, vm_id) == [
        *(f"line {number}" for number in range(1, 6)),
        "… 12,345 lines left out …",
        "line 12351",
    ]
    # An agent that lost its count begins a new one, and so does one that counts nothing.
    await record_vm_logs(db, [batch(vm_id, 1, 1, stream="s2"), LogBatch(vm_id, "workload", ["uncounted"])])
    assert (await said(db, vm_id))[-2:] == ["line 1", "uncounted"]


async def test_of_each_source_the_beginning_and_the_end_are_kept_under_a_bound_in_bytes(db: Database) -> None:
    vm_id, bounds = await make_one(db), LogBounds(head_bytes=1_000, tail_bytes=3_000)
    await record_vm_log(db, vm_id, "boot", ["the boot"])
    for number in range(1, 400, 2):
        await record_vm_logs(db, [batch(vm_id, number, 2)], bounds)
    lines = [line for line in await list_vm_log(db, vm_id) if line.source == "workload"]
    numbers = [int(line.message.split()[1]) for line in lines if line.level != "gap"]
    (gap,) = [line for line in lines if line.level == "gap"]
    assert numbers[:2] == [1, 2]
    assert numbers[-2:] == [399, 400]
    assert gap.message == f"… {400 - len(numbers)} lines left out …"
    size = select(func.sum(VmLog.bytes)).where(VmLog.source == "workload")
    async with db.transaction() as session:
        kept = await session.scalar(size)
        assert kept == await session.scalar(
            text("SELECT sum(bytes) FROM vm_logs WHERE source = 'workload' AND octet_length(lines) + 100 = bytes")
        )
    assert 1_500 < kept < 1_000 + SLACK * 3_000 + 200
    # The flood of one source pushes no other out.
    assert "the boot" in await said(db, vm_id)


async def test_a_source_too_many_is_refused_and_the_others_are_kept(db: Database) -> None:
    vm_id = await make_one(db)
    batches = [LogBatch(vm_id, f"source {number}", ["x"]) for number in range(MAX_SOURCES + 1)]
    refusals = await record_vm_logs(db, batches)
    assert refusals[:-1] == [None] * MAX_SOURCES
    assert isinstance(refusals[-1], InvalidInput)
    assert len(await said(db, vm_id)) == MAX_SOURCES
    with pytest.raises(InvalidInput):
        await record_vm_log(db, vm_id, "one more", ["x"])


@pytest.mark.parametrize("cut", range(1, len(KEY)))
async def test_a_private_key_is_struck_out_wherever_two_batches_part_it(db: Database, cut: int) -> None:
    vm_id = await make_one(db)
    for lines in (["before", *KEY[:cut]], [*KEY[cut:], "after"]):
        await record_vm_logs(db, [LogBatch(vm_id, "workload", lines)])
    async with db.transaction() as session:
        stored = str((await session.execute(text("SELECT string_agg(l::text, '') FROM vm_logs AS l"))).scalar())
        stored += str((await session.execute(text("SELECT string_agg(s::text, '') FROM vm_log_sources AS s"))).scalar())
    assert not [line for line in KEY[1:3] if line in stored]
    lines = await said(db, vm_id)
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", len(KEY) + 2)


async def test_secrets_go_by_look_and_by_value_also_when_name_and_value_come_apart(db: Database) -> None:
    vm_id = await make_one(db)
    lines = [
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY AKIAIOSFODNN7EXAMPLE",
        "join code: ABCD-EFGH; --pin=482915; postgresql://lab:hunter2@db/lab",
        "our own is the-servers-secret, in colour the-\x1b[31mservers\x1b[0m-secret",
        "password:",
    ]
    await record_vm_logs(db, [LogBatch(vm_id, "workload", lines)], secrets=["the-servers-secret"])
    await record_vm_logs(db, [LogBatch(vm_id, "workload", ["correct-horse", "a harmless line"])])
    kept = await said(db, vm_id)
    struck = ("wJalr", "AKIA", "EFGH", "482915", "hunter2", "the-servers", "correct")
    assert [word for word in struck if word in "\n".join(kept)] == []
    assert kept[-1] == "a harmless line"


async def test_lines_are_made_fit_to_be_kept_and_shown(db: Database) -> None:
    vm_id = await make_one(db)
    await record_vm_log(db, vm_id, "workload", ["x" * 10_000, "nul \x00 \ud800 end"])
    assert await said(db, vm_id) == ["x" * MAX_LINE, "nul  ? end"]


@pytest.mark.parametrize(
    ("line", "tidied"),
    [
        ("\x1b[1;31mred\x1b[0m and plain", "red and plain"),
        ("\x1b]0;a title\x07text\x1b(B", "text"),
        ("10 %\r 55 %\r100 %\r\n", "100 %"),
        ("a\tb\x08\x7f\x9bc", "a\tb"),
        ("\u202eevil", "evil"),
        ("ünïcödé 語", "ünïcödé 語"),
    ],
)
def test_nothing_of_a_line_moves_a_cursor(line: str, tidied: str) -> None:
    assert tidy(line) == tidied


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR disk full", "error"), ("2026-01-01 [WARNING] hot", "warn"), ("DEBUG x", "debug"),
        ("level=warn x", "warn"),
        ('{"level":"fatal"}', "error"), ("Traceback (most recent call last):", "error"),
        ("0 errors, all fine", "info"),
        ("error: no such file", "error"), ("INFO an ERROR was handled", "info"), ("x" * 200 + " ERROR", "info"),
    ],
)  # fmt: skip
def test_a_line_says_itself_how_bad_it_is(line: str, level: str) -> None:
    assert level_of(line) == level


async def test_a_reader_gets_only_what_is_new_and_of_very_much_the_two_ends(db: Database) -> None:
    vm_id, cursor = await make_one(db), LogCursor()

    async def read(**limits: int) -> list[str]:
        return [line.message async for lines in iterate_vm_log(db, vm_id, cursor, **limits) for line in lines]

    await record_vm_logs(db, [batch(vm_id, first, 10) for first in range(1, 1_000, 10)])
    first = await read(head=20, tail=50)
    assert len(first) == 20 + 1 + 50
    assert first[20] == "… 930 lines left out …"
    assert await read() == []
    await record_vm_logs(db, [batch(vm_id, 1_001, 2)])
    assert await read(head=20, tail=50) == ["line 1001", "line 1002"]


async def test_a_log_outlives_its_machine_for_as_long_as_it_is_set(db: Database, clock: Clock) -> None:
    (gone, living) = await make_machines(db, 2)
    for machine in (gone, living):
        await record_vm_log(db, machine.vm_id, "boot", ["hello"])
    async with db.transaction() as session:
        await session.execute(
            update(Vm).where(Vm.id == gone.vm_id).values(status="destroyed", status_changed_at=db.now())
        )
    for days, left in ((29, ["hello"]), (2, [])):
        clock.advance(days * 86_400)
        await remove_old(db, samples_hours=24, averages_days=30, log_days=30, events_days=365)
        assert await said(db, gone.vm_id) == left
        assert await said(db, living.vm_id) == ["hello"]


async def test_terraforms_log_keeps_its_ends_once_and_goes_with_time(
    db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "OPERATION_HEAD", 3)
    monkeypatch.setattr(retention, "OPERATION_TAIL", 5)
    await make_machines(db, 1)
    operation = await request_launch(db, "lab", 2, actor=ADMIN)
    hostname = operation.hostnames[1]
    await record_log(db, operation.id, [LogLine(db.now(), "info", f"line {number}") for number in range(19)])
    await record_log(db, operation.id, [LogLine(db.now(), "error", f'terraform_data.vm["{hostname}"]: no room')])
    async with db.transaction() as session:
        await session.execute(update(Operation).values(finished_at=db.now()))
    for _ in range(2):
        await remove_old(db, samples_hours=24, averages_days=30, log_days=30, events_days=365)
    lines = [line.message for line in await list_operation_log(db, operation.id)]
    assert lines[:5] == ["line 0", "line 1", "line 2", "… 12 lines left out …", "line 15"]
    assert lines == [line.message async for part in iterate_operation_log(db, operation.id, portion=4) for line in part]
    # What it says of one machine is in that machine's log, and in no other's.
    vm_id = (await get_vm(db, hostname)).id
    assert [line.level for line in await list_terraform_lines(db, vm_id, hostname)] == ["error"]
    other = operation.hostnames[0]
    assert await list_terraform_lines(db, (await get_vm(db, other)).id, other) == []
    clock.advance(timedelta(days=31).total_seconds())
    await remove_old(db, samples_hours=24, averages_days=30, log_days=30, events_days=365)
    async with db.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(OperationLog)) == 0


async def test_a_write_costs_as_many_statements_for_fifty_machines_as_for_one(db: Database) -> None:
    machines = [machine.vm_id for machine in await make_machines(db, 50)]
    counts = []
    for vm_ids in (machines[:1], machines):
        with_lines = [batch(vm_id, 1, 100, stream=f"of {len(vm_ids)}") for vm_id in vm_ids]
        counts.append(await count_statements(db, lambda given=with_lines: record_vm_logs(db, given)))
    assert counts == [3, 3]
    # A hundred short lines: their text, a time for each, a row for all.
    async with db.transaction() as session:
        assert (await session.scalar(select(func.max(VmLog.bytes)))) < 100 * (len("line 100") + 22) + 100


async def test_lines_of_many_agents_are_written_together_and_each_gets_its_own_answer(db: Database) -> None:
    machines, buffer = await make_machines(db, 5), LogBuffer(db, secrets=["the-servers-secret"])
    given = [LogBatch(machine.vm_id, "workload", [f"of {machine.vm_id} the-servers-secret"]) for machine in machines]
    many = [LogBatch(machines[0].vm_id, f"s{number}", ["x"]) for number in range(MAX_SOURCES)]
    adding = asyncio.gather(*(buffer.add(each) for each in [*given, *many]), return_exceptions=True)
    await asyncio.sleep(0)
    running = asyncio.create_task(buffer.run())
    answers = await adding
    running.cancel()
    assert [str(type(each).__name__) for each in answers if each is not None] == ["InvalidInput"]
    for machine in machines[1:]:
        assert await said(db, machine.vm_id) == [f"of {machine.vm_id} [secret]"]


async def test_what_cannot_be_stored_now_is_told_so_and_stored_once_when_it_comes_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id, buffer = await make_one(db), LogBuffer(db)
    running = asyncio.create_task(buffer.run())
    async with db.transaction() as session:
        await session.execute(text("ALTER TABLE vm_log_sources RENAME TO gone"))
    with pytest.raises(Unavailable):
        await buffer.add(batch(vm_id, 1, 2))
    assert await asyncio.gather(running, return_exceptions=True)
    async with db.transaction() as session:
        await session.execute(text("ALTER TABLE gone RENAME TO vm_log_sources"))
    # As the supervisor does.
    running = asyncio.create_task(buffer.run())
    for _ in range(2):
        await buffer.add(batch(vm_id, 1, 2))
    running.cancel()
    assert await said(db, vm_id) == ["line 1", "line 2"]
    # More than the memory is meant for waits with the agents.
    monkeypatch.setattr(log_buffer, "MAX_WAITING_CHARS", 5)
    waiting = asyncio.create_task(buffer.add(batch(vm_id, 3, 2)))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="Too many logs"):
        await buffer.add(batch(vm_id, 5, 2))
    waiting.cancel()
