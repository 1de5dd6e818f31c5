"""How the text of a key is formed, and what is kept of its secret."""

import hashlib
import re
import secrets
from typing import NamedTuple

_ENDPOINT = re.compile(r"[0-9a-f]{12}")
_KEY = re.compile(r"tacit\.([0-9a-f]{12})\.([A-Za-z0-9_-]{43})")


class KeyText(NamedTuple):
    """A key's two parts."""

    key_id: str
    secret: str

    def __str__(self) -> str:
        return f"tacit.{self.key_id}.{self.secret}"

    @classmethod
    def new(cls) -> "KeyText":
        """A key nobody has, with 256 random bits."""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str | None) -> "KeyText | None":
        """The parts of ``text``, or None if no key looks like that."""
        found = _KEY.fullmatch(text or "")
        return None if found is None else cls(*found.groups())


def key_id_of(key: str) -> str:
    """The public part of a key's text, under which its row is found."""
    return key.split(".")[1]


def new_endpoint() -> str:
    """The id in the path of a new webhook."""
    return secrets.token_hex(6)


def is_endpoint(text: str) -> bool:
    """Whether ``text`` could be the id in a webhook's path."""
    return _ENDPOINT.fullmatch(text) is not None


def secret_hash(secret: str) -> str:
    """What is kept of a secret. It has 256 random bits, so a fast hash cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()
