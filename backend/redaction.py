"""What must never stand in a log, struck out by its look: tokens, cookies, codes, links that open something, passwords.

Applied to the server's own log and to every text that is stored because something said it: lines that agents and
Terraform write, messages of events. Rather a harmless word too much than one secret too few.
"""

from __future__ import annotations

import re
from collections.abc import Collection

STRUCK = "[secret]"
SHORTEST_VALUE = 6
_NAMED = (
    "(?:password|passwd|passphrase|pwd|secret|(?:api|agent|access|refresh|id|enrolment|session|security)_?token|api_?key"
    r"|(?:secret_?)?access_?key(?:_id)?|\bpin|code_verifier|lablink_keys)"
)
# name=value, "name": "value", ('name', b'value'): what may stand between a name and its value, and the value.
_IS = r"""(?:\\?["']?\s{0,9}(?:[=:]|=>)\s{0,9}|\\?["'],\s{0,9})"""
_VALUE = r"""(?:b?\\?"[^"\n]{0,500}"|b?\\?'[^'\n]{0,500}'|[^\s"'&;,)}\\]+)"""
# (what a line must hold, in lower case, for the rule to be worth trying; the rule: its first group stays)
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (triggers, re.compile(pattern))
    for triggers, pattern in (
        (("bearer", "basic"), r"(?i)\b((?:bearer|basic)\s{1,9})[A-Za-z0-9._~+/=-]{4,}"),
        # Our cookies, in a header, a dictionary or a traceback.
        (("lablink-",), rf"((?:__Host-)?lablink-[a-z]{{1,20}}{_IS}){_VALUE}"),
        # A page's client id stands in its socket's URL and speaks for the page.
        (("client_id",), r"(?i)\b(client_id=)[^\s&\"']+"),
        # The password in a URL: postgresql://user:password@host.
        (("://",), r"(\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@\"']{0,200}:)[^\s/\"']{1,500}(?=@)"),
        # Anything that calls itself a secret.
        (
            ("pass", "pwd", "secret", "token", "key", "pin", "verifier"),
            rf"(?i)({_NAMED}{_IS}){_VALUE}",
        ),
        (("?", "&"), r"(?i)([?&](?:token|code|state|nonce|key|session_state)=)[^\s&\"']+"),
        # Links that open a seat or make an admin.
        (("/seat/open/", "/invite/"), r"(/(?:seat/open|invite)/)[^\s/?#\"'<>]+"),
        # A code of Google's page for Chrome Remote Desktop, plain or in a URL.
        (("4/", "4%2f"), r"(?<![A-Za-z0-9])()4(?:/|%2[fF])[A-Za-z0-9_-]{10,}"),
        # What we sealed, and a provider's JWT.
        (("gaaaa",), r"()\bgAAAA[A-Za-z0-9_=-]{40,}"),
        # AWS' names of keys; private keys, a line at a time or with their lines written as one.
        (("akia", "asia"), r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        # A join code or a seat's key, where it is called one: ABCD-EFGH, or four such groups.
        (
            ("code", "seat", "key"),
            rf"""(?i)(\b(?:join|seat)[ _-]?(?:code|key){_IS}["\']?)[0-9A-Z]{{4}}(?:-[0-9A-Z]{{4}}){{1,3}}\b""",
        ),
        (("eyj",), r"()\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    )
)
KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY = re.compile(
    rf"(?P<begins>{KEY_BEGINS.pattern})(?P<rest>[^\n]*)(?P<body>(?:\n[^\S\n]*[A-Za-z0-9+/=]{{16,100}}[^\S\n]*)*"
    r"(?:\n[^\S\n]*[A-Za-z0-9+/]{1,15}={0,2}[^\S\n]*(?=\n[^\S\n]*-----END))?)"
)
# 256 random bits, URL-safe, as all our tokens and signatures are: by their length and their mixture.
_RANDOM = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]{0,42}\d)(?=[a-z0-9_-]{0,42}[A-Z])(?=[A-Z0-9_-]{0,42}[a-z])"
    r"[A-Za-z0-9_-]{43}=?(?![A-Za-z0-9_-])"
)


def redact(text: str, values: Collection[str] = ()) -> str:
    """The text with every secret struck out: what looks like one, and these very ``values`` whatever they look like."""
    for value in values:
        if len(value) >= SHORTEST_VALUE:
            text = text.replace(value, STRUCK)
    lowered = text.lower()
    if "private key-----" in lowered:
        text = _KEY.sub(_strike_key, text)
    for triggers, pattern in _RULES:
        if any(trigger in lowered for trigger in triggers):
            text = pattern.sub(rf"\g<1>{STRUCK}", text)
    return _RANDOM.sub(STRUCK, text)


def _strike_key(found: re.Match[str]) -> str:
    """A private key keeps its first line and the number of its lines."""
    rest = STRUCK if found["rest"].strip() else ""
    return found["begins"] + rest + f"\n{STRUCK}" * found["body"].count("\n")
