"""Are the secrets there, whole, and readable by the service alone?"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn
from tacit.secrets_file import MASTER_NAME

AREA = "keys"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Signing key, master secret, API keys; and the addresses of webhooks kept in variables."""
    folder = settings.keys_path.resolve()
    signing = folder / "signing.pem"
    if not signing.exists():
        yield _no_signing_key(folder)
    else:
        yield _signing_key(signing)
    secrets = [signing, folder / MASTER_NAME, *sorted(folder.glob("*.key"))]
    for path in (path for path in secrets if path.exists()):
        yield from _private(path)
    for name, webhook in settings.gatekeeper.webhooks.items():
        if webhook.url_variable and not os.environ.get(webhook.url_variable):
            yield fail(
                AREA,
                f"gatekeeper.webhooks.{name}: {webhook.url_variable} is not in the environment",
                f"Set {webhook.url_variable} to the address.",
            )


def _no_signing_key(folder: Path) -> Finding:
    if (folder / "signing.pub").exists():
        return fail(
            AREA,
            f"{folder} has the public half of the signing key alone",
            "Put signing.pem back: with another key every approval so far stops counting.",
        )
    return ok(AREA, f"the signing key is made in {folder} at the start")


def _signing_key(path: Path) -> Finding:
    mend = "Put the key back from a backup; approvals are bound to it."
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        return fail(AREA, f"{path} cannot be used: {error}", mend)
    if not isinstance(key, Ed25519PrivateKey):
        return fail(AREA, f"{path} is not an Ed25519 key but {type(key).__name__}", mend)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    half = path.with_name("signing.pub")
    if half.exists() and half.read_bytes() != public:
        return warn(
            AREA,
            f"{half} does not belong to {path.name}",
            "It is written anew at the start. If you did not change the key, find out who did.",
        )
    return ok(AREA, f"{path} signs")


def _private(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        yield fail(AREA, f"{path} has mode {mode:04o}: others can reach it", f"chmod 600 {path}")
