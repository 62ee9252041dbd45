"""Bearer secrets: 256 random bits for whoever holds them, SHA-256 for us.

A slow hash would add nothing: there is no guessing 256 random bits.
"""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """A fresh secret of 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored of a secret. Looked up by index: equality of SHA-256 hashes leaks nothing useful by time."""
    return hashlib.sha256(token.encode()).digest()
