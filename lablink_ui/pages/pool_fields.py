"""The fields of a pool's specification, for a new pool and for one that is edited."""

from __future__ import annotations

from dataclasses import replace

from backend.errors import InvalidInput
from backend.house import House
from backend.services.healing_limits import OWN as HEALING
from backend.services.health_limits import OWN as HEALTH
from backend.services.own_figures import show_figures
from backend.services.pools import AWS, PoolSpec
from lablink_ui.pages.pool_aws_fields import AwsFields
from lablink_ui.parts import Field, tag


class PoolFields:
    """The fields of a pool's specification."""

    def __init__(self, spec: PoolSpec, house: House) -> None:
        with tag("div", "fields"):
            self._add_size(spec, list(house.providers))
            self._add_deadlines(spec)
            self.terminal = _choice("Terminal in the browser", "terminal", is_on=spec.terminal)
            self.crd = _choice("Chrome Remote Desktop", "crd", is_on=spec.crd)
        self.url_template = Field(
            "Link to the machine",
            name="url_template",
            value=spec.url_template or "",
            hint="https://…, with {hostname} and {email} filled in for each seat",
            testid="pool-url-template",
        )
        self._add_figures(spec)
        self._add_scripts(spec)
        self.aws = AwsFields(spec.aws) if AWS in house.providers else None
        self._follow_provider()

    @property
    def all(self) -> list[Field]:
        """Every field."""
        own = [value for value in vars(self).values() if isinstance(value, Field)]
        return own + (self.aws.all if self.aws else [])

    def lock(self) -> None:
        """Makes them something to look at only."""
        for field in self.all:
            field.input.props["disabled"] = True

    def read(self, base: PoolSpec) -> PoolSpec:
        """What stands in the fields now.

        Raises:
            InvalidInput: a number is none.
        """
        try:
            return replace(
                base,
                provider=self.provider.value,
                max=int(self.max.value),
                available_min=int(self.available_min.value),
                price_per_hour=float(self.price.value),
                boot_deadline_s=int(self.boot.value),
                unreachable_grace_s=int(self.grace.value),
                claim_duration_s=_seconds(self.duration.value),
                idle_limit_s=_seconds(self.idle.value),
                terminal=self.terminal.value == "on",
                crd=self.crd.value == "on",
                url_template=self.url_template.value.strip() or None,
                repository=self.repository.value.strip() or None,
                startup_script=self.script.value.replace("\r\n", "\n") or None,
                cleaning_script=self.cleaning_script.value.replace("\r\n", "\n") or None,
                cleaning_deadline_s=int(self.cleaning.value),
                check_command=self.check_command.value.strip() or None,
                health=HEALTH.read(self.health.value),
                healing=HEALING.read(self.healing.value),
                aws=self.aws.read() if self.aws else base.aws,
            )
        except ValueError:
            raise InvalidInput("Fill every number field with a number.") from None

    def _add_size(self, spec: PoolSpec, providers: list[str]) -> None:
        self.provider = Field(
            "Provider",
            name="provider",
            kind="select",
            value=spec.provider,
            options={name: name for name in providers},
            testid="pool-provider",
            on_change=self._follow_provider,
        )
        self.max = Field(
            "Most machines", name="max", kind="number", value=str(spec.max), min=1, max=1000, testid="pool-max"
        )
        self.available_min = Field(
            "Free ones to keep ready",
            name="available_min",
            kind="number",
            value=str(spec.available_min),
            min=0,
            max=1000,
            testid="pool-available-min",
        )
        self.price = Field(
            "Price per machine and hour, $",
            name="price",
            kind="number",
            value=f"{spec.price_per_hour:g}",
            min=0,
            step="any",
            testid="pool-price",
        )

    def _add_deadlines(self, spec: PoolSpec) -> None:
        self.boot = Field("Boot deadline, seconds", name="boot", kind="number", value=str(spec.boot_deadline_s), min=30)
        self.grace = Field(
            "May be silent for, seconds", name="grace", kind="number", value=str(spec.unreachable_grace_s), min=30
        )
        self.cleaning = Field(
            "Cleaning deadline, seconds",
            name="cleaning",
            kind="number",
            value=str(spec.cleaning_deadline_s),
            min=30,
            hint="A machine that is not clean by then is not offered again",
        )
        self.duration = Field(
            "A seat ends after, minutes",
            name="claim_duration",
            kind="number",
            value=_minutes(spec.claim_duration_s),
            min=1,
            hint="Empty: it does not. Researchers can stay longer by a click",
            testid="pool-claim-duration",
        )
        self.idle = Field(
            "Or unused for, minutes",
            name="idle_limit",
            kind="number",
            value=_minutes(spec.idle_limit_s),
            min=1,
            hint="Empty: it does not. A machine at work is in use",
            testid="pool-idle-limit",
        )

    def _add_figures(self, spec: PoolSpec) -> None:
        self.health = Field(
            "Health thresholds",
            name="health",
            value=show_figures(spec.health),
            hint="Where they differ from the server's, such as hot_c=85 memory_pct=95 gpus=1",
            testid="pool-health",
        )
        self.healing = Field(
            "Healing",
            name="healing",
            value=show_figures(spec.healing),
            hint="Where it differs from the server's, such as at_once=3 reboot_s=0 seat_grace_s=1800",
            testid="pool-healing-figures",
        )

    def _add_scripts(self, spec: PoolSpec) -> None:
        self.check_command = Field(
            "Check command",
            name="check_command",
            value=spec.check_command or "",
            hint="Run by a rehearsal on each machine as a researcher would, such as nvidia-smi",
            maxlength=2_000,
            testid="pool-check-command",
        )
        self.repository = Field(
            "Git repository",
            name="repository",
            value=spec.repository or "",
            hint="Cloned on each machine before it is ready",
            testid="pool-repository",
        )
        self.script = Field(
            "Startup script",
            name="script",
            kind="area",
            value=spec.startup_script or "",
            hint="Run on each machine before it is ready",
            testid="pool-script",
        )
        self.cleaning_script = Field(
            "Cleaning script",
            name="cleaning_script",
            kind="area",
            value=spec.cleaning_script or "",
            hint="Run between two people, once the processes of the former have ended",
            testid="pool-cleaning-script",
        )

    def _follow_provider(self) -> None:
        if self.aws:
            self.aws.section.set_visibility(self.provider.value == AWS)


def _minutes(seconds: int | None) -> str:
    return f"{seconds / 60:g}" if seconds is not None else ""


def _seconds(minutes: str) -> int | None:
    return round(float(minutes) * 60) if minutes.strip() else None


def _choice(label: str, name: str, *, is_on: bool) -> Field:
    """Whether a seat offers a connection."""
    options, value = {"on": "Offered", "off": "Not offered"}, "on" if is_on else "off"
    return Field(label, name=name, kind="select", value=value, options=options, testid=f"pool-{name}")
