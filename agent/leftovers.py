"""Ends what runs in the sessions of an agent that runs no more, or removes the sessions: for whoever switches a machine
off, or takes it away, that is no machine of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.removal import end_processes, end_session
from agent.session import SessionError, find_session, list_sessions
from agent.store import Store


def main(argv: Sequence[str]) -> int:
    """``end HOME`` or ``remove HOME``. Returns the exit status: 1 if something is left."""
    parser = argparse.ArgumentParser(prog="python -m agent.leftovers", description=__doc__)
    parser.add_argument("verb", choices=("end", "remove"))
    parser.add_argument("home", type=Path, help="the data directory of the agent")
    given = parser.parse_args(argv)
    store, status = Store(given.home), 0
    for claim_id in list_sessions(store):
        try:
            if given.verb == "remove":
                end_session(store, claim_id, "")
            elif (session := find_session(store, claim_id, "")) is not None:
                end_processes(session)
        except SessionError as exc:
            print(f"session {claim_id}: {exc}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
