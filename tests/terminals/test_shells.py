"""Shells over the wire, with real agents: what they are, what survives, what is held back, what remains of them."""

from __future__ import annotations

import os
import pwd
import re
import time
from pathlib import Path

import psutil

from tests.harness.pools import database_of
from tests.harness.seats import plain
from tests.harness.server import gather_all
from tests.harness.waiting import until


async def test_a_shell_speaks_utf8_knows_its_size_and_its_machine_and_two_are_apart(take_seat) -> None:
    seat = await take_seat()
    one, two = await seat.start(), await seat.start()
    await one.resize(101, 33)
    await one.type("stty size; echo ö€𝄞; x=one; echo $HOSTNAME; tty\n")
    await two.type('echo "[$x]"; tty\n')
    await one.shows("33 101", "ö€𝄞", f"\n{seat.hostname}")
    await two.shows("[]")
    ttys = [re.search(r"\n(/dev/pts/\d+)", await screen.shows("/dev/pts/")) for screen in (one, two)]
    assert ttys[0] and ttys[1] and ttys[0][1] != ttys[1][1]


async def test_every_frame_of_a_character_cut_in_two_arrives_whole(take_seat) -> None:
    seat = await take_seat()
    screen = await seat.start()
    await screen.type("python3 -c 'print(\"€\" * 30000)'; echo d''one\n")
    text = await screen.shows("\ndone")
    assert text.count("€") == 30_000 + 1
    assert "\ufffd" not in text


async def test_a_session_sees_no_secret_of_its_agent_and_nothing_of_another_session(lab, take_seat) -> None:
    ada, bob = await take_seat("ada@lab.org"), await take_seat("bob@lab.org")
    mine, other = await ada.start(), await bob.start()
    await other.type("echo private > ~/notes.txt; echo home=$HOME pid=$$ tty=$(tty); echo d''one\n")
    found = re.search(r"\nhome=(\S+) pid=(\d+) tty=(\S+)", await other.shows("\ndone"))
    assert found
    others_home, others_pid, others_tty = found.groups()
    agent_home = lab.home / "vms" / ada.hostname / "home"
    agent = lab.vms.list_running()[ada.hostname]
    token = (agent_home / "agent.token").read_text()
    for path in (
        agent_home / "agent.token",
        f"/proc/{agent}/environ",
        f"{others_home}/notes.txt",
        lab.home / "keys.json",
        f"/proc/{others_pid}/environ",
    ):
        await mine.type(f"cat {path}\n")
    await mine.type("env; ls ~/..; echo r''ead\n")
    text = await mine.shows("\nread")
    assert "LABLINK_ENROLMENT_TOKEN" not in text
    assert "LABLINK_SERVER_URL" not in text
    answer = await ada.client.get("/api/seat/terminals")
    isolation = answer.json()["terminals"][0]["isolation"]
    # An agent that is not root cannot do better, and says so.
    assert isolation == ("user" if os.geteuid() == 0 else "none")
    if isolation == "user":
        assert token not in text
        assert "\nprivate" not in text
        assert text.count("Permission denied") >= 5
        # Nor does it write into what is another's, or end it.
        for path in (f"{others_home}/notes.txt", f"{others_home}/new.txt", others_tty, agent_home / "agent.token"):
            await mine.type(f"echo by-me >> {path}\n")
        await mine.type(f"kill -KILL {others_pid} {agent} {lab.process.pid}; echo d''one\n")
        text = (await mine.shows("\ndone")).partition("\nread")[2]
        assert (text.count("Permission denied"), text.count("Operation not permitted")) == (4, 3)
        await other.type("cat ~/notes.txt; echo still h''ere\n")
        assert "by-me" not in await other.shows("\nprivate\nstill here")


async def test_after_a_cut_it_is_the_same_shell_and_nothing_of_a_counting_loop_is_missing(take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    first = await seat.connect(number)
    await first.shows("$ ")
    await first.type("echo pid=$$; for i in $(seq 300); do echo n$i; sleep 0.01; done\n")
    pid = re.search(r"\npid=(\d+)", await first.shows("n40"))
    first.cut()
    await first.closed()
    again = await seat.connect(number, offset=first.offset)
    await again.shows("n300")
    whole = plain(first.output + again.output)
    assert re.findall(r"^n(\d+)$", whole, re.MULTILINE) == [str(number) for number in range(1, 301)]
    await again.type("echo pid=$$\n")
    assert pid and await again.shows(f"pid={pid[1]}")


async def test_after_a_restart_of_the_server_it_is_the_same_shell_and_nothing_is_missing(lab, take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    first = await seat.connect(number)
    await first.shows("$ ")
    await first.type("x=kept; for i in $(seq 200); do echo n$i; sleep 0.02; done\n")
    await first.shows("n20")
    lab.kill()
    await first.closed()
    await lab.start()
    again = await until(lambda: seat.connect(number, offset=first.offset), what="the terminal is there again")
    await again.shows("n200")
    whole = plain(first.output + again.output)
    assert re.findall(r"^n(\d+)$", whole, re.MULTILINE) == [str(number) for number in range(1, 201)]
    await again.type("echo [$x]\n")
    await again.shows("[kept]")


async def test_one_that_writes_without_end_slows_nobody_and_fills_no_memory(lab, take_seat) -> None:
    seat = await take_seat()
    loud, quiet = await seat.start(), await seat.start()
    loud.acknowledges = False
    server, agent = psutil.Process(lab.process.pid), psutil.Process(lab.vms.list_running()[seat.hostname])
    before = [process.memory_info().rss for process in (server, agent)]
    await loud.type("yes\n")
    await until(lambda: loud.offset > 250_000, what="yes is held")
    slowest_s = 0.0
    for number in range(20):
        began = time.monotonic()
        await quiet.type(f"echo a{number}b\n")
        await quiet.shows(f"\na{number}b")
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert slowest_s < 1
    # Held at its own terminal: nobody has taken more than what may be on its way.
    assert loud.offset <= 320 * 1024
    grown = [process.memory_info().rss - was for process, was in zip((server, agent), before, strict=True)]
    assert max(grown) < 30_000_000, grown
    loud.acknowledges = True
    await loud.acknowledge()
    await until(lambda: loud.offset > 600_000, what="it goes on when it is read")
    await loud.type("\x03")
    await loud.shows("^C")
    await loud.type("echo o''ver\n")
    await loud.shows("\nover")


async def test_the_end_of_the_shell_ends_the_terminal_with_its_status(lab, take_seat) -> None:
    seat = await take_seat()
    screen = await seat.start()
    await screen.type("echo secret-words; exit 3\n")
    assert await screen.says("over") == "the shell has ended with status 3"
    assert await screen.closed() == 4_410
    assert (await seat.client.get("/api/seat/terminals")).json() == {"terminals": []}
    events = await list_events_of(lab, seat.hostname)
    kinds = [event.kind for event in events]
    assert {"terminal.opened", "terminal.ended"} <= set(kinds)
    assert not any("secret-words" in event.message for event in events)


async def test_closing_a_terminal_ends_what_runs_in_it_and_leaves_the_others(take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    screen, other = await seat.connect(number), await seat.start()
    await screen.shows("$ ")
    await screen.type("echo pid=$$; sleep 4321\n")
    pid = re.search(r"\npid=(\d+)", await screen.shows("\npid="))
    answer = await seat.client.delete(f"/api/seat/terminals/{number}", headers=seat.headers)
    assert answer.status_code == 200
    assert await screen.closed() == 4_410
    assert pid
    await until(lambda: not psutil.pid_exists(int(pid[1])), what="the shell has ended")
    await other.type("echo still h''ere\n")
    await other.shows("still here")


async def test_giving_the_seat_back_ends_its_shells_and_leaves_neither_process_nor_file_nor_user(
    lab, take_seat
) -> None:
    seat = await take_seat()
    screen = await seat.start()
    await screen.type("echo home=$HOME user=$USER; nohup sleep 4322 >/dev/null 2>&1 & setsid sleep 4323 &\n")
    await screen.type("touch ~/a /tmp/left-by-$USER; mkdir /var/tmp/left-by-$USER; echo d''one\n")
    found = re.search(r"\nhome=(\S+) user=(\S+)", await screen.shows("\ndone"))
    assert found
    home, user = Path(found[1]), found[2]
    await until(lambda: len(list_sleeps()) == 2, what="both run")
    began = time.monotonic()
    async with database_of(lab) as db:
        from backend.services.actor import Actor
        from backend.services.claims import release_vms

        await release_vms(db, [seat.hostname], actor=Actor.admin("test"))
    assert await screen.closed() == 4_410
    assert time.monotonic() - began < 1
    await lab.until_status([seat.hostname], "available")
    assert list_sleeps() == []
    assert not home.exists()
    if os.geteuid() == 0:
        assert not home.parent.exists()
        assert not Path(f"/tmp/left-by-{user}").exists()
        assert not Path(f"/var/tmp/left-by-{user}").exists()
        assert user not in {each.pw_name for each in pwd.getpwall()}


async def test_a_killed_agent_ends_its_terminals_and_new_ones_open_after_its_restart(lab, take_seat) -> None:
    seat = await take_seat()
    screen = await seat.start()
    psutil.Process(lab.vms.list_running()[seat.hostname]).kill()
    await until(lambda: screen.said[-1].get("machine") is False, what="the page is told")
    # As systemd would.
    await until(lambda: seat.hostname not in lab.vms.list_running())
    lab.vms.power_on(seat.hostname)
    assert await screen.says("over") == "the agent of the machine was started again"
    assert await screen.closed() == 4_410
    await seat.start()


def list_sleeps() -> list[int]:
    """The sleeps that only these tests start."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if (process.info["cmdline"] or [""])[-1] in {"4322", "4323"} and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def list_events_of(lab, hostname: str):
    from backend.services.events import list_events
    from backend.services.vms import get_vm

    async with database_of(lab) as db:
        return await list_events(db, vm_id=(await get_vm(db, hostname)).id)


async def test_all_of_many_terminals_opened_at_the_same_moment_answer(take_seat) -> None:
    seats = [await take_seat(f"p{number}@lab.org") for number in range(3)]
    screens = await gather_all(*(seat.start() for seat in seats for _ in range(8)))
    for number, screen in enumerate(screens):
        await screen.type(f"echo a{number}b\n")
    for number, screen in enumerate(screens):
        await screen.shows(f"\na{number}b\n")
