"""What the channels share: how a trial fails, and the words of a message."""

from __future__ import annotations

from backend.services.alarm_deliveries import Delivery
from backend.states import AlarmNews

_TITLES = {AlarmNews.OPENED: "", AlarmNews.WORSENED: "Worse: ", AlarmNews.RESOLVED: "Resolved: "}


class NotSent(Exception):
    """The other side did not take it; the sentence says why and holds no secret."""


def title_of(delivery: Delivery) -> str:
    """One line: ``[critical] Worse: 30 of 100 machines …``."""
    message = delivery.message
    return f"[{message['severity']}] {_TITLES[AlarmNews(message['news'])]}{message['sentence']}"


def remedy_of(delivery: Delivery) -> str:
    """What can be done; nothing once it is over."""
    return "" if delivery.message["news"] == AlarmNews.RESOLVED else str(delivery.message["remedy"])
