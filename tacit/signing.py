"""Ed25519 signatures in DSSE envelopes (https://github.com/secure-systems-lab/dsse).

The gatekeeper signs; serving and auditors verify with the public key alone.
"""

import json
import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from tacit.contracts import canonical_json
from tacit.errors import IntegrityError

PRIVATE_NAME = "signing.pem"
PUBLIC_NAME = "signing.pub"
PAYLOAD_TYPE = "application/vnd.tacit+json"


class Verifier:
    """Checks envelopes against one public key."""

    def __init__(self, public_key: SSlibKey) -> None:
        self._public_key = public_key

    @classmethod
    def load(cls, path: Path) -> "Verifier":
        """Read the public key; raises IntegrityError if it is not there or not a key."""
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
            return cls(SSlibKey.from_crypto(key))
        except (OSError, ValueError) as error:
            raise IntegrityError(
                f"an Ed25519 public key in {path}",
                got=str(error),
                mend="Give this process the signing.pub that `tacit keys signing` made.",
            ) from error

    def open(self, envelope_json: str) -> dict[str, Any]:
        """The signed payload. Raises IntegrityError if the envelope was altered or forged."""
        try:
            envelope = Envelope.from_dict(json.loads(envelope_json))
            envelope.verify([self._public_key], threshold=1)
            if envelope.payload_type != PAYLOAD_TYPE:
                raise IntegrityError(f"payload type {PAYLOAD_TYPE}", got=envelope.payload_type)
            payload = json.loads(envelope.payload)
        except IntegrityError:
            raise
        except (VerificationError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                "an envelope signed by the gatekeeper", got=f"one that does not verify: {error}"
            ) from error
        if not isinstance(payload, dict):
            raise IntegrityError("a signed JSON object", got=type(payload).__name__)
        return payload


class Signer(Verifier):
    """Signs envelopes; holds the private key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._signer = CryptoSigner(private_key)
        self._public_pem = private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        super().__init__(self._signer.public_key)

    @classmethod
    def load_or_create(cls, folder: Path) -> "Signer":
        """The key in ``folder/signing.pem``; made, with its public half, where there is neither.

        Raises IntegrityError for a key that cannot be used, for the public half of another and
        for one without the key: approvals are bound to the key they were signed with.
        """
        path, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
        if not path.exists() and public.exists():
            raise IntegrityError(
                f"{PRIVATE_NAME} in {folder}, with which this process signs",
                got="its public half alone",
                mend="Put it back, or mount it here: with another key every approval so far stops "
                "counting. Serving is the one that needs the public half only.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _write_key(path, Ed25519PrivateKey.generate())
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise IntegrityError(
                f"an Ed25519 private key in {path}",
                got=str(error),
                mend="`tacit keys signing FOLDER` makes one; the user of this process reads it.",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IntegrityError(f"an Ed25519 private key in {path}", got=type(key).__name__)
        signer = cls(key)
        _publish(signer.public_pem(), public)
        return signer

    def public_pem(self) -> bytes:
        """The public key as :meth:`Verifier.load` reads it."""
        return self._public_pem

    def seal(self, payload: dict[str, Any]) -> str:
        """JSON of a DSSE envelope over the canonical form of ``payload``."""
        envelope = Envelope(canonical_json(payload), PAYLOAD_TYPE, {})
        envelope.sign(self._signer)
        return json.dumps(envelope.to_dict(), sort_keys=True)


def _publish(pem: bytes, path: Path) -> None:
    if path.exists() and path.read_bytes() == pem:
        return
    try:
        path.write_bytes(pem)
    except OSError as error:  # a secret that is mounted cannot be written to
        if path.exists():
            raise IntegrityError(
                f"the public half of {PRIVATE_NAME} in {path}", got="that of another key"
            ) from error


def _write_key(path: Path, key: Ed25519PrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # O_EXCL: of two processes starting at once only one makes the key.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
