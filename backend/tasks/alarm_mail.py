"""Alarms as e-mails: the standard library's SMTP client, in a thread that nobody waits for at the end."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import ssl
import threading
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import format_datetime

from backend.services.alarm_deliveries import Delivery
from backend.setting_keys import AlarmSettings
from backend.tasks.sending import NotSent, remedy_of, title_of

ANSWER_S = 10.0
MAX_SUBJECT = 150


class Mail:
    """One mail server. ``public_url``: where the links lead."""

    def __init__(self, settings: AlarmSettings, password: str | None, public_url: str) -> None:
        self._settings, self._password, self._public_url = settings, password, public_url

    async def send(self, delivery: Delivery) -> None:
        """Hands it to the mail server.

        Raises:
            NotSent: it did not take it for everybody.
        """
        message = self._message(delivery)
        try:
            await _in_thread(lambda: self._hand_over(message))
        except smtplib.SMTPResponseException as exc:
            raise NotSent(f"the mail server said {exc.smtp_code}") from exc
        except (smtplib.SMTPException, OSError) as exc:
            # The name alone: an error may repeat what was said to the server.
            raise NotSent(f"the mail server could not be used ({type(exc).__name__})") from exc

    def _hand_over(self, message: EmailMessage) -> None:
        keys = self._settings
        host, port = keys.smtp_host or "", keys.smtp_port
        # Its certificate is verified: no password is given to whoever answers.
        context = ssl.create_default_context()
        with (
            smtplib.SMTP_SSL(host, port, timeout=ANSWER_S, context=context)
            if keys.smtp_security == "tls"
            else smtplib.SMTP(host, port, timeout=ANSWER_S)
        ) as server:
            if keys.smtp_security == "starttls":
                server.starttls(context=context)
            if keys.smtp_user and self._password:
                server.login(keys.smtp_user, self._password)
            refused = server.send_message(message)
            if refused:
                raise smtplib.SMTPRecipientsRefused(refused)

    def _message(self, delivery: Delivery) -> EmailMessage:
        told, message = delivery.message, EmailMessage()
        title = " ".join(title_of(delivery).split())
        message["Subject"] = title if len(title) <= MAX_SUBJECT else f"{title[: MAX_SUBJECT - 1]}…"
        message["From"], message["To"] = self._settings.email_from or "", ", ".join(self._settings.email_to)
        message["Date"] = format_datetime(delivery.created_at)
        # The same at each trial: whoever gets it twice is shown it once.
        message["Message-ID"] = f"<lablink-alarm-{delivery.id}-{told['alarm_id']}@{_domain(message['From'])}>"
        message["Auto-Submitted"] = "auto-generated"
        since = f"Since {told['opened_at']}."
        place = self._public_url + str(told["place"])
        message.set_content("\n\n".join(part for part in (title, remedy_of(delivery), since, place) if part) + "\n")
        return message


def _domain(address: str) -> str:
    return address.rpartition("@")[2] or "lablink"


async def _in_thread(work: Callable[[], None]) -> None:
    """In a thread of its own: one that hangs is left behind, where the loop's own threads are waited for at the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(exc: Exception | None) -> None:
        if done.done():
            return
        if exc is None:
            done.set_result(None)
        else:
            done.set_exception(exc)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as exc:
            failure = exc
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, failure)

    threading.Thread(target=run, name="alarm mail", daemon=True).start()
    await done
