"""The roster of a pool: paste or upload it, see what is wrong with which line, hand out and replace personal links."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from backend.live.changes import ChangeSet
from backend.services.rosters import list_roster, make_link, reissue_link, remove_people
from backend.services.views import PoolView
from backend.states import Role
from lablink_ui.components import Column, CopyButton, Empty, LiveTable, Verb
from lablink_ui.frame import Frame
from lablink_ui.parts import link_button, tag, text
from lablink_ui.rows import roster_row
from lablink_ui.visits import Reader, Visit, attempt, tell
from lablink_ui.words import count, people

MAX_SHOWN = 100
_COLUMNS = (Column("email", "E-mail"), Column("label", "Label", wrap=True))
_VERBS = (Verb("link", "Show link"), Verb("reissue", "New link", danger=True), Verb("remove", "Remove", danger=True))
_QUESTIONS = {
    "reissue": "Their former links stop working at once. Seats they have stay theirs.",
    "remove": "Their links stop working at once. Seats they have stay theirs: take those back on the machine's page.",
}
_CHECK = "async (e) => { e.preventDefault(); emit(await lablinkRoster(e.target, false)); }"
_IMPORT = "async (e) => { emit(await lablinkRoster(e.currentTarget.form, true)); }"


class RosterPart:
    """The roster."""

    def __init__(self, visit: Visit, frame: Frame, pool: PoolView) -> None:
        self._visit, self._frame, self._pool = visit, frame, pool
        self._part = tag("div", "stack")
        with self._part:
            self._draw_form()
            with tag("div", "stack tight", role="status") as self._answer:
                self._gist = text("p", "", "", data_testid="roster-answer")
                self._bad = tag("ul", "bad-lines")
            self._answer.set_visibility(False)
            table = LiveTable(
                "People on the roster",
                _COLUMNS,
                empty=Empty("Nobody yet", "Paste or upload the roster above."),
                verbs=_VERBS,
                on_act=self._act,
            )
            self._table = table
            with tag("div", "stack tight") as self._links:
                self._shown = text("pre", "", "mono secret", data_testid="roster-links")
                self._copy = CopyButton("Copy")
            self._links.set_visibility(False)
            link_button("Download all links", f"/api/admin/pools/{pool.name}/roster.csv", classes="start")
        self._reader = Reader(self._read)

    def show(self, *, is_shown: bool, changes: ChangeSet | None) -> None:
        """Shows the roster while it counts. Who may only look gets none: links are keys."""
        is_shown = is_shown and self._visit.admin.role is not Role.VIEWER
        self._part.set_visibility(is_shown)
        if not is_shown and changes is None:
            # Nobody sees it, but what asks whether the page still waits for something does.
            self._table.show([])
        if is_shown and (changes is None or changes.pools or changes.touches("roster_entries", self._pool.id)):
            self._reader.ask()

    def _draw_form(self) -> None:
        with tag("form", "stack", data_pool=self._pool.name) as form:
            with tag("div", "field"):
                tag("label", "", "Add people", for_="people")
                tag("textarea", "input", id="people", name="people", data_testid="roster-text", spellcheck="false")
                tag("span", "hint", "One e-mail a line; after a comma, semicolon or tab a label, if you like")
            with tag("div", "field"):
                tag("label", "", "Or a CSV file", for_="roster-file")
                kinds = ".csv,.txt,.tsv,text/csv,text/plain"
                tag(
                    "input",
                    "input",
                    type="file",
                    id="roster-file",
                    name="file",
                    accept=kinds,
                    data_testid="roster-file",
                )
            with tag("div", "row"):
                tag("button", "button", "Check", type="submit", data_testid="roster-check")
                self._import = tag("button", "button primary", type="button", data_testid="roster-import")
                with self._import:
                    self._import_words = text("span")
            self._import.set_visibility(False)
            self._import.on("click", lambda event: self._take(event.args), js_handler=_IMPORT)
        form.on("submit", lambda event: self._take(event.args), js_handler=_CHECK)

    def _take(self, answer: Mapping[str, Any]) -> None:
        """Shows what was found in a roster, or what came of its import. It comes from the browser: shown, no more."""
        error, bad = answer.get("error"), list(answer.get("bad") or ())
        good, is_done = int(answer.get("good") or 0), "added" in answer
        self._answer.set_visibility(True)
        self._bad.clear()
        self._import.set_visibility(not error and not is_done and good > 0)
        self._import_words.say(f"Import {people(good)}")
        if error:
            self._gist.say(str(error.get("message", "That did not work.")))
            return
        said = f"{people(good)} can be imported."
        if is_done:
            said = f"Done: {answer['added']} added, {answer['changed']} changed, {answer['present']} were on it."
        if repeated := int(answer.get("repeated") or 0):
            said += f" {count(repeated, 'line')} named somebody twice."
        self._gist.say(f"{said} {count(len(bad), 'line')} cannot be used:" if bad else said)
        with self._bad:
            for line in bad[:MAX_SHOWN]:
                tag("li", "", f"Line {line.get('line')}: {line.get('reason')}")
            if len(bad) > MAX_SHOWN:
                tag("li", "", f"and {len(bad) - MAX_SHOWN} more")

    async def _read(self) -> None:
        self._table.show([roster_row(entry) for entry in await list_roster(self._visit.house.db, self._pool.id)])

    async def _act(self, verb: str, emails: list[str]) -> None:
        actions = {"link": self._show, "reissue": self._reissue, "remove": self._remove}
        if verb not in actions or not emails:
            return
        if verb in _QUESTIONS and not await self._frame.ask.ask(
            f"{'New links for' if verb == 'reissue' else 'Remove'} {people(len(emails))}?",
            _QUESTIONS[verb],
            verb="New links" if verb == "reissue" else "Remove",
        ):
            return
        await attempt(partial(actions[verb], emails))

    async def _show(self, emails: list[str]) -> str | None:
        await self._visit.actor()
        await self._show_links(emails)
        return None

    async def _reissue(self, emails: list[str]) -> str | None:
        actor = await self._visit.actor()
        for email in emails:
            await reissue_link(self._visit.house.db, self._pool.id, email, actor=actor)
        await self._show_links(emails)
        return f"{count(len(emails), 'link')} made anew"

    async def _remove(self, emails: list[str]) -> str | None:
        number = await remove_people(self._visit.house.db, self._pool.id, emails, actor=await self._visit.actor())
        return f"{people(number)} taken off the roster"

    async def _show_links(self, emails: list[str]) -> None:
        house, wanted = self._visit.house, set(emails)
        entries = [entry for entry in await list_roster(house.db, self._pool.id) if entry.email in wanted]
        links = [make_link(house.keys, house.settings.public_url, self._pool.name, entry) for entry in entries]
        shown = "\n".join(f"{entry.email}  {link}" for entry, link in zip(entries, links, strict=True))
        self._shown.say(shown)
        self._copy.hold(links[0] if len(links) == 1 else shown)
        self._links.set_visibility(True)
        if not links:
            tell("They are not on the roster any more.", is_bad=True)
