"""The part of the schedules' page about money: each pool's budget, what is spent of it, and its fuse."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import InvalidInput
from backend.services.budgets import BudgetView, lift_fuse, list_budgets, remove_budget, set_budget
from backend.states import Role
from lablink_ui.forms import Values, form
from lablink_ui.frame import Frame
from lablink_ui.parts import Field, button, tag
from lablink_ui.visits import Visit, attempt
from lablink_ui.words import money

_LIFT = "Machines can be launched again, and refilled, until this pool gets another budget. It goes on costing money."
_REMOVE = "What it costs is not watched any more, and nothing is refused for its cost."
# Where the bar turns red.
_HOT_PCT = 80


class BudgetsPart:
    """The budgets."""

    def __init__(self, visit: Visit, frame: Frame, pools: Sequence[str]) -> None:
        self._visit, self._frame = visit, frame
        self._shown: list[BudgetView] | None = None
        with tag("div", "stack"):
            with tag("section", "card pad", aria_label="Budgets"):
                tag("h2", "", "Budgets")
                tag("p", "sub", "Told of at 50, 80 and 100 %. Once all is spent, nothing more is launched.")
                self._box = tag("ul", "lines", aria_label="Budgets")
            if visit.may_administer:
                self._draw_form(pools)
            else:
                tag("p", "note", "Admins set budgets and lift fuses.")

    async def read(self) -> None:
        """Reads the budgets and shows them."""
        found = await list_budgets(self._visit.house.db)
        if found == self._shown:
            return
        self._shown = found
        self._box.clear()
        with self._box:
            for budget in found:
                self._draw(budget)
            if not found:
                tag("li", "sub", "No pool has one.")

    def _draw(self, budget: BudgetView) -> None:
        with tag("li", "", data_testid=f"budget-{budget.pool}", data_status=_state(budget)):
            with tag("div", "what"):
                with tag("span", "row"):
                    tag("strong", "", budget.pool)
                    if budget.is_fused:
                        tag("span", "chip bad", "Spent: no launches")
                    elif budget.is_lifted:
                        tag("span", "chip busy", "Spent: goes on")
                with tag("span", "meter"):
                    with tag("span", "track", aria_hidden="true"):
                        is_hot = "fill hot" if budget.spent_pct >= _HOT_PCT else "fill"
                        tag("span", is_hot, style=f"width: {min(100, budget.spent_pct):.0f}%")
                    tag("span", "", f"{money(budget.spent)} of {money(budget.dollars)} ({budget.spent_pct:,.0f} %)")
                tag("span", "sub", f"counted from {budget.counts_from:%-d %B %Y %H:%M} UTC")
            if self._visit.may_administer:
                with tag("div", "row"):
                    self._draw_verbs(budget)

    def _draw_verbs(self, budget: BudgetView) -> None:
        if budget.is_fused:
            button(
                "Lift fuse",
                lambda: self._ask_to_lift(budget.pool),
                classes="small danger",
                testid=f"budget-lift-{budget.pool}",
                aria_label=f"Lift fuse: {budget.pool}",
            )
        button(
            "Remove",
            lambda: self._ask_to_remove(budget.pool),
            classes="small danger",
            testid=f"budget-remove-{budget.pool}",
            aria_label=f"Remove the budget of {budget.pool}",
        )

    def _draw_form(self, pools: Sequence[str]) -> None:
        with form("Set a budget", aria_label="Set a budget") as card:
            first = pools[0] if pools else ""
            with tag("div", "fields"):
                Field(
                    "Pool",
                    name="budget_pool",
                    kind="select",
                    testid="budget-pool",
                    value=first,
                    options={pool: pool for pool in pools},
                )
                Field("US dollars", name="dollars", kind="number", testid="budget-dollars", min=0.01, step="any")
            with tag("fieldset", "days"):
                tag("legend", "sr", "From when it counts")
                with tag("label", "", for_="budget-anew"):
                    tag("input", type="checkbox", id="budget-anew", name="anew", data_testid="budget-anew")
                    tag("span", "", "Count from now, not from the first budget of this pool")
            card.finish("Set budget", testid="budget-submit")

        async def put(values: Values) -> str:
            actor = await self._visit.actor(Role.ADMIN)
            pool, dollars = values.get("budget_pool", ""), _dollars(values.get("dollars", ""))
            await set_budget(self._visit.house.db, pool, dollars, is_from_now="anew" in values, actor=actor)
            return f"{pool} may cost {money(dollars)}"

        card.on_send(put)

    async def _ask_to_lift(self, pool: str) -> None:
        if await self._frame.ask.ask(f"Lift the fuse of {pool}?", _LIFT, verb="Lift fuse"):
            await attempt(lambda: self._lift(pool))

    async def _lift(self, pool: str) -> str:
        await lift_fuse(self._visit.house.db, pool, actor=await self._visit.actor(Role.ADMIN))
        return f"{pool} goes on"

    async def _ask_to_remove(self, pool: str) -> None:
        if await self._frame.ask.ask(f"Remove the budget of {pool}?", _REMOVE, verb="Remove"):
            await attempt(lambda: self._remove(pool))

    async def _remove(self, pool: str) -> str:
        await remove_budget(self._visit.house.db, pool, actor=await self._visit.actor(Role.ADMIN))
        return f"{pool} has no budget any more"


def _state(budget: BudgetView) -> str:
    if budget.is_fused:
        return "fused"
    return "lifted" if budget.is_lifted else "open"


def _dollars(typed: str) -> float:
    try:
        return float(typed)
    except ValueError:
        raise InvalidInput("A budget is a sum of US dollars, such as 250.") from None
