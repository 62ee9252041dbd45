"""The keys of this installation: they seal what must be read again, and sign what goes out and comes back.

Made at the first start in the data directory, or given by LABLINK_KEYS (newest first, separated by commas). Rotation
puts a new key in front; what older keys sealed or signed stays valid until they fall off the end of the list.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from backend.errors import LabLinkError

KEPT_KEYS = 5
_FILE = "keys.json"


class UnusableKey(LabLinkError):
    """A key that cannot be used; says why."""

    code = "unusable_key"


class KeyRing:
    """Seals (Fernet: AES-128-CBC with HMAC-SHA256) and signs (HMAC-SHA256), with the newest key."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise UnusableKey("There must be at least one key.")
        try:
            self._sealer = MultiFernet([Fernet(key) for key in keys])
        except ValueError as exc:
            raise UnusableKey("A key must be 32 random bytes in URL-safe base64 (LABLINK_KEYS, keys.json).") from exc
        self._signers = [hashlib.sha256(b"sign:" + key.encode()).digest() for key in keys]

    @property
    def names(self) -> frozenset[str]:
        """What the keys can be told apart by; nothing of them can be learned from it."""
        return frozenset(hashlib.sha256(b"name:" + key).hexdigest() for key in self._signers)

    def take_over(self, other: KeyRing) -> None:
        """Goes on with the keys of another ring, wherever this one is held."""
        self._sealer, self._signers = other._sealer, other._signers

    def seal(self, text: str) -> str:
        """The text, unreadable without a key."""
        return self._sealer.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """What was sealed; None if it was not sealed by any of our keys."""
        try:
            return self._sealer.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):
            return None

    def sign(self, purpose: str, text: str) -> str:
        """A signature of ``text`` that is valid for ``purpose`` alone; 256 bits, URL-safe."""
        return _mac(self._signers[0], purpose, text)

    def is_signed(self, purpose: str, text: str, signature: str) -> bool:
        """Whether any of our keys made this signature."""
        given = signature.encode(errors="replace")
        return any(hmac.compare_digest(_mac(key, purpose, text).encode(), given) for key in self._signers)


def load_keys(home: Path, given: str | None = None) -> KeyRing:
    """The key ring: the keys that were given, else those of the data directory, made if there are none.

    Raises:
        UnusableKey: a key cannot be used.
    """
    if given:
        return KeyRing([key.strip() for key in given.split(",") if key.strip()])
    path = home / _FILE
    try:
        # "x": of two processes that start at once, one makes the keys and the other reads them.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            json.dump({"keys": [new_key()]}, file)
    except FileExistsError:
        pass
    return KeyRing(_read(path))


def rotate_keys(home: Path) -> int:
    """Puts a new key in front of those in the data directory. Returns how many there are now."""
    load_keys(home)
    path = home / _FILE
    keys = [new_key(), *_read(path)][:KEPT_KEYS]
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        json.dump({"keys": keys}, file)
    temporary.replace(path)
    return len(keys)


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return Fernet.generate_key().decode()


def _read(path: Path) -> list[str]:
    try:
        return [str(key) for key in json.loads(path.read_text(encoding="ascii"))["keys"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise UnusableKey(f"{path} holds no keys; restore it from a backup.") from exc


def _mac(key: bytes, purpose: str, text: str) -> str:
    digest = hmac.new(key, f"{purpose}\x00{text}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
