"""Users as rows of a live table."""

from __future__ import annotations

from backend.services.people import UserView
from lablink_ui.components.change import Row
from lablink_ui.words import count


def user_row(user: UserView) -> Row:
    """A user."""
    seen = user.last_seen_at.isoformat() if user.last_seen_at else None
    status = "disabled" if user.disabled_at else "active"
    notes = [{"text": "Second step", "tone": "good", "title": "Each sign-in asks for a code"}]
    return {
        "id": user.id,
        "name": user.name,
        "testid": f"user-{user.name}",
        "status": status,
        "group": status,
        "gist": f"{status} {user.role} {user.has_second_step}",
        "words": user.name,
        "actions": [],
        "ticks": True,
        "user": {"text": user.name, "href": f"/admin/people/{user.name}", "sub": None},
        "state": {
            "text": "Disabled" if user.disabled_at else "Active",
            "tone": "idle" if user.disabled_at else "good",
            "notes": notes if user.has_second_step else [],
        },
        "role": user.role.capitalize(),
        "sessions": count(user.sessions, "browser") if user.sessions else None,
        "seen": seen,
        "sort": {
            "user": user.name,
            "state": status,
            "role": user.role.rank,
            "sessions": user.sessions,
            "seen": seen,
        },
    }
