"""Opening a seat in one more browser, with its key."""

from __future__ import annotations

from lablink_ui.parts import Field, tag, text


def draw_key_form() -> None:
    """A field for a seat key."""
    with tag("form", "card pad") as form:
        Field(
            "Seat key",
            name="key",
            testid="seat-key-field",
            hint="Shown when you claimed: four times four characters",
            autocomplete="off",
            autocapitalize="characters",
            spellcheck="false",
            required=True,
            autofocus=True,
        )
        text("div", "", "error", data_testid="seat-key-error", role="alert")
        tag("button", "button primary big", "Open my seat", type="submit", data_testid="seat-key-submit")
    form.on(
        "submit", js_handler="(e) => { e.preventDefault(); lablinkOpenSeat(e.target, e.target.elements.key.value); }"
    )
