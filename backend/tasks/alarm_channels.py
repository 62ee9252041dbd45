"""The ways out of the house for alarms: takes what is due from the table, sends it, and writes down what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from backend.db.engine import Database
from backend.services.alarm_deliveries import LEASE_S, Delivery, record_not_sent, record_sent, take_deliveries
from backend.settings import Settings
from backend.states import Channel
from backend.tasks.alarm_mail import Mail
from backend.tasks.alarm_webhook import Webhook
from backend.tasks.sending import NotSent
from backend.tasks.supervisor import Supervisor

EVERY_S = 2.0
# A trial ends long before another process could take the message up.
TRIAL_S = LEASE_S / 3

Send = Callable[[Delivery], Awaitable[None]]
logger = logging.getLogger(__name__)


class AlarmChannels:
    """The channels that the settings name. Each has a task of its own: one that hangs keeps nobody waiting."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._sends: Mapping[Channel, Send] = _sends_of(settings)

    @property
    def names(self) -> tuple[Channel, ...]:
        """Where alarms are told."""
        return tuple(self._sends)

    def start(self, supervisor: Supervisor) -> None:
        """Starts a task for each."""
        for channel in self._sends:
            supervisor.start_every(f"alarms by {channel}", EVERY_S, partial(self.send_due, channel))

    async def send_due(self, channel: Channel) -> None:
        """Sends what is due by one channel."""
        deliveries = await take_deliveries(self._db, channel)
        await asyncio.gather(*(self._try(each, self._sends[channel]) for each in deliveries))

    async def _try(self, delivery: Delivery, send: Send) -> None:
        try:
            async with asyncio.timeout(TRIAL_S):
                await send(delivery)
        except NotSent as exc:
            why = str(exc)
        except TimeoutError:
            why = f"no answer within {TRIAL_S:.0f} s"
        else:
            await record_sent(self._db, delivery.id)
            return
        logger.warning("an alarm was not taken by %s at trial %d: %s", delivery.channel, delivery.attempts, why)
        await record_not_sent(self._db, delivery.id, why)


def _sends_of(settings: Settings) -> dict[Channel, Send]:
    secrets, sends = settings.secrets, dict[Channel, Send]()
    if secrets.webhook_url:
        sends[Channel.WEBHOOK] = Webhook(secrets.webhook_url, secrets.webhook_secret, settings.public_url).send
    if settings.alarms.smtp_host:
        sends[Channel.EMAIL] = Mail(settings.alarms, secrets.smtp_password, settings.public_url).send
    return sends
