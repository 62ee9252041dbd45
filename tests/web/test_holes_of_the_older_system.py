"""The holes of the system before this one, each with the tests that try it and fail to get in.

What belongs to cloud machines (their user data, open ports, prices and quotas) and to schedules comes with those.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import psycopg
import pytest

from backend.db.engine import Database
from backend.services.destroys import request_destroy
from backend.services.enrolments import announce_boot, create_enrolments
from backend.services.vm_logs import list_vm_log, record_vm_log
from backend.services.vms import fail_overdue_vms, get_vm, request_reboot
from tests.harness.agents import join
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until
from tests.services.worlds import ADMIN, make_machines, obey, status_of

TESTS = Path(__file__).parents[1]
HERE = "web/test_holes_of_the_older_system.py"
HOLES = {
    "typing somebody's e-mail joins their live desktop": (
        "api/test_seats.py::test_typing_someones_email_gives_neither_their_seat_nor_a_second_one",
        "journeys/test_seats.py::test_code_claim_key_shown_once_another_browser_by_key_and_signed_out_again",
    ),
    "the same e-mail twice, or again while rebooting, is two seats": (
        "api/test_seats.py::test_the_same_email_twice_and_a_rejoin_while_rebooting_are_the_same_seat",
    ),
    "a burst of people is booked twice": (
        "services/test_claims.py::test_two_hundred_people_at_once_get_a_machine_each_or_a_place_in_line",
        "api/test_claims_at_once.py::test_200_people_claim_120_machines_at_once_and_the_line_moves_in_order",
    ),
    "the body of a report names the machine that it writes to": (
        "api/test_bad_input.py::test_an_agents_token_reads_and_writes_nothing_of_another_machine",
    ),
    "one token for the whole fleet, in states and environments": (
        "services/test_heartbeats.py::test_a_used_enrolment_token_serves_no_other_machine_and_no_other_boot",
        (
            "provisioning/test_real_operations.py::"
            "test_what_belongs_to_a_pool_is_private_and_its_state_names_machines_only"
        ),
        "terminals/test_shells.py::test_a_session_sees_no_secret_of_its_agent_and_nothing_of_another_session",
    ),
    "tokens are made anew when the server restarts": (
        "terminals/test_shells.py::test_after_a_restart_of_the_server_it_is_the_same_shell_and_nothing_is_missing",
        "web/test_keys.py::test_a_running_server_takes_up_rotated_keys_and_nobody_is_thrown_out",
    ),
    "a warm reboot registers again and kills its own token": (
        "agent/test_life.py::test_a_restart_announces_the_boot_with_the_token_it_has",
        "provisioning/test_local_vms.py::test_a_vm_that_was_off_is_the_same_machine_in_a_new_boot",
    ),
    "adding machines stops and starts those that live": (
        "provisioning/test_real_operations.py::test_a_launch_that_would_touch_a_living_machine_is_refused_and_says_why",
    ),
    "one machine cannot be removed, and drift makes too many": (
        "journeys/test_launch_claim_destroy.py::test_destroying_one_of_four_leaves_the_other_three_untouched",
        "journeys/test_crashes.py::test_a_machine_that_no_row_knows_does_not_survive_a_restart",
    ),
    "pasted shell text is run, and an abbreviated flag passes the check": (
        "crd/test_paste.py::test_a_hostile_or_broken_paste_is_refused_with_what_is_wrong",
        "crd/test_journey.py::test_nobody_else_reads_the_pin_or_the_link_or_pastes_and_a_hostile_paste_changes_nothing",
    ),
    "every idle machine holds a connection to the database, and everybody's code wakes all": (
        f"{HERE}::test_agents_that_wait_hold_no_connection_to_the_database",
        "api/test_bad_input.py::test_an_agents_token_reads_and_writes_nothing_of_another_machine",
        "crd/test_requests.py::test_code_and_pin_are_sealed_until_they_reach_the_agent_and_forgotten_with_the_result",
    ),
    "wake-ups are lost": (
        "db/test_notices.py::test_what_changed_while_the_listener_was_cut_off_is_read_afterwards",
        "db/test_notices.py::test_no_notice_is_lost_while_the_listener_looks_after_its_own_connection",
    ),
    "the remote desktop stays bound to the account of whoever sat there before": (
        "crd/test_journey.py::test_from_the_paste_to_the_desktop_each_step_live_and_nothing_left_after_the_seat",
        "crd/test_journey.py::test_a_host_that_does_not_end_keeps_its_machine_from_being_offered_again",
    ),
    "a step that failed ends in the removal of somebody's work": (
        "services/test_claims.py::test_a_machine_is_offered_again_only_after_its_session_was_removed",
    ),
    "an old machine that reboots is taken for one that never came up": (
        f"{HERE}::test_an_old_machine_that_reboots_has_its_whole_deadline_again",
    ),
    "a machine that never registered is never noticed": (
        "services/test_heartbeats.py::test_a_machine_that_never_reports_is_failed_after_its_boot_deadline",
    ),
    "a slow hash for every heartbeat": (f"{HERE}::test_a_random_token_is_stored_as_its_sha256",),
    "exports hold secrets": (
        "services/test_history.py::test_no_secret_stands_in_the_history_or_leaves_with_it",
        "web/test_secrets.py::test_what_is_written_everywhere_is_found_nowhere",
    ),
    "no protection against other sites, no limits, no history": (
        "web/test_forms.py::test_a_form_without_its_token_or_with_another_browsers_signs_nobody_in",
        "web/test_guessing.py::test_guessing_is_stopped_and_hinders_nobody_who_is_right",
        "web/test_limits.py::test_requests_that_never_end_do_not_hold_a_place",
        "services/test_history.py::test_whoever_does_something_stands_beside_it",
    ),
    "logs vanish with the machine, and a limit loses their end": (
        f"{HERE}::test_the_log_of_a_machine_outlives_it",
        "agent/test_logs.py::test_while_the_server_is_away_the_beginning_and_the_end_are_kept_and_the_gap_is_told",
    ),
    "anybody is an admin": (
        "api/test_people.py::test_a_viewers_token_and_session_change_nothing_on_any_route",
        "services/test_who_may_what.py::test_a_viewer_and_whoever_has_no_role_is_refused_every_action",
    ),
}


@pytest.mark.parametrize("hole", HOLES)
def test_every_hole_has_its_tests(hole: str) -> None:
    for each in HOLES[hole]:
        file, _, name = each.partition("::")
        defined = {
            node.name
            for node in ast.parse((TESTS / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in defined, each


async def test_agents_that_wait_hold_no_connection_to_the_database(shared_server: Server) -> None:
    pool, count = await make_pool(shared_server, "waiting", max=100), 60
    async with shared_server.client() as client, database_of(shared_server) as db:
        agents = await join(shared_server, client, count, prefix="waiting", pool=pool)
        polls = gather_all(*(agent.list_commands(wait=5) for agent in agents))
        async with await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection:

            async def busiest() -> int:
                query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                (found,) = await (await connection.execute(query)).fetchone()
                return int(found)

            (told, connections) = await gather_all(polls, until(busiest, what="the database answers"))
        assert told == [[]] * count
        assert connections < count / 2


async def test_an_old_machine_that_reboots_has_its_whole_deadline_again(db: Database, clock) -> None:
    await make_machines(db, 1)
    clock.advance(5 * 24 * 3_600)
    await request_reboot(db, ["lab-m0"], actor=ADMIN)
    clock.advance(890)
    assert await fail_overdue_vms(db) == 0
    clock.advance(20)
    assert await fail_overdue_vms(db) == 1


async def test_a_random_token_is_stored_as_its_sha256(db: Database) -> None:
    await make_machines(db, 1)
    (token,) = await create_enrolments(db, "lab", 1, actor=ADMIN)
    enrolled = await announce_boot(db, token, hostname="lab-m1", boot_id="boot-1", agent_version="1")
    async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
        rows = await (await connection.execute("SELECT row_to_json(e)::text FROM enrolments e")).fetchall()
    for secret in (token, enrolled.agent_token or ""):
        assert hashlib.sha256(secret.encode()).hexdigest() in str(rows)
        assert secret not in str(rows)


async def test_the_log_of_a_machine_outlives_it(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    await record_vm_log(db, machine.vm_id, "startup", ["first", "last"])
    await request_destroy(db, ["lab-m0"], actor=ADMIN)
    await obey(db, machine.vm_id)
    assert await status_of(db, "lab-m0") == "destroyed"
    assert [line.message for line in await list_vm_log(db, (await get_vm(db, "lab-m0")).id)] == ["first", "last"]
