"""The card of the second step: set up with a QR code, confirm with a first code, turn off."""

from __future__ import annotations

import segno
from nicegui import ui

from backend.services.people import UserView
from backend.services.second_step import begin_second_step, confirm_second_step, end_own_second_step
from backend.states import Role
from lablink_ui.forms import Values, form, password_field
from lablink_ui.parts import Chip, Field, tag
from lablink_ui.visits import Visit

_WORDS = {True: ("On", "good"), False: ("Off", "idle")}
_SAID = {
    True: "Each sign-in asks for a code of your app.",
    False: "With it, each sign-in also asks for a code that an app on your phone makes.",
}


class SecondStepCard:
    """What the account page shows of the second step."""

    def __init__(self, visit: Visit, user: UserView) -> None:
        self._visit = visit
        self._is_on: bool | None = None
        self._has_password = user.has_password
        with tag("section", "stack", aria_label="Second step"):
            self._box = tag("div", "stack")
        self.show(user)

    def show(self, user: UserView) -> None:
        """Draws the card anew once the second step was turned on or off, here or elsewhere."""
        if user.has_second_step == self._is_on:
            return
        self._is_on = user.has_second_step
        self._box.clear()
        with self._box:
            if not self._has_password:
                with tag("section", "card pad"):
                    tag("h2", "", "Second step")
                    tag("p", "sub", "Your organisation's sign-in takes care of it.")
            else:
                self._draw_password_form()

    def _draw_password_form(self) -> None:
        on = self._is_on or False
        with form("Second step", aria_label="Second step") as card:
            chip = Chip("second-step")
            chip.show("on" if on else "off", _WORDS[on])
            tag("p", "sub", _SAID[on])
            password_field("Present password", "password", testid="second-step-password")
            if on:
                card.finish("Turn off", testid="second-step-off", tone="danger")
            else:
                card.finish("Set up", testid="second-step-begin")
        card.on_send(self._end if on else self._begin)

    async def _end(self, values: Values) -> str:
        house, actor = self._visit.house, await self._visit.actor(*Role)
        password = values.get("password", "")
        await end_own_second_step(house.db, self._user_id, password, throttle=house.throttle, actor=actor)
        return "The second step is off"

    async def _begin(self, values: Values) -> None:
        house, actor = self._visit.house, await self._visit.actor(*Role)
        setup = await begin_second_step(
            house.db, self._user_id, values.get("password", ""), keys=house.keys, throttle=house.throttle, actor=actor
        )
        self._box.clear()
        with self._box, form("Set up the second step", aria_label="Set up the second step") as card:
            tag("p", "sub", "Scan this with an authenticator app, then enter the code that it shows.")
            image = segno.make(setup.uri, error="m").svg_inline(scale=5, border=3, dark="#000", light="#fff")
            with tag("div", "qr", role="img", aria_label="QR code for the app; its key stands below as text"):
                ui.html(image, sanitize=False)
            with tag("p", "sub"):
                tag("span", "", "Or type this key: ")
                tag("code", "mono", setup.secret, data_testid="second-step-secret")
            Field(
                "Code",
                name="code",
                testid="second-step-code",
                autocomplete="one-time-code",
                inputmode="numeric",
                required=True,
            )
            card.finish("Turn on", testid="second-step-confirm", tone="primary")
        card.on_send(self._confirm)

    async def _confirm(self, values: Values) -> str:
        house, actor = self._visit.house, await self._visit.actor(*Role)
        code = values.get("code", "")
        await confirm_second_step(house.db, self._user_id, code, keys=house.keys, throttle=house.throttle, actor=actor)
        return "The second step is on"

    @property
    def _user_id(self) -> int:
        return self._visit.admin.user_id or 0
