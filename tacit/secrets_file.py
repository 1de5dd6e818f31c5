"""Secrets the service makes for itself, kept in files that only its user can read.

In: a path under ``<home>/keys``. Out: the same secret every time, or a key derived from it for one
purpose, so that no two uses share a key and none has to be stored.
"""

import base64
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tacit.errors import ConfigError

MASTER_NAME = "master.secret"
_MIN_CHARACTERS = 32
_DERIVED_BYTES = 32


def load_or_create_secret(path: Path) -> str:
    """The secret kept at ``path`` with mode 0600; 256 random bits as text if there was none.

    Raises ConfigError on a file that holds too little to be a secret.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    text = path.read_text().strip()
    if len(text) < _MIN_CHARACTERS:
        raise ConfigError(
            f"a secret of at least {_MIN_CHARACTERS} characters in {path}",
            got=f"{len(text)} characters",
            mend="Put the file back from a backup, or remove it and a new one is made.",
        )
    return text


class MasterSecret:
    """The one secret behind feedback tokens and webhooks."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    @classmethod
    def load_or_create(cls, folder: Path) -> "MasterSecret":
        """The one in ``folder``, the service's ``keys_path``."""
        return cls(load_or_create_secret(folder / MASTER_NAME))

    def derive(self, purpose: str) -> bytes:
        """32 bytes that belong to ``purpose``: HKDF-SHA256 (RFC 5869)."""
        derivation = HKDF(SHA256(), length=_DERIVED_BYTES, salt=None, info=purpose.encode())
        return derivation.derive(self._text)

    def webhook_secret(self, key_id: str) -> str:
        """The secret of the webhook key ``key_id``, as Standard Webhooks writes it."""
        return "whsec_" + base64.b64encode(self.derive(f"tacit webhook {key_id}")).decode()


def _create(path: Path) -> None:
    # Written first and linked then: nobody can read half a secret, and of two processes that
    # start at once one wins. Temporary files are made with mode 0600.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name) as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)
