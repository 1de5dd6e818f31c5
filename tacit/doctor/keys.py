"""Are the secrets there, whole, and readable by the service alone?"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn
from tacit.doctor.home import nearest_folder
from tacit.secrets_file import MASTER_NAME
from tacit.signing import PRIVATE_NAME, PUBLIC_NAME

AREA = "keys"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Signing key, master secret, API keys; and the addresses of webhooks kept in variables."""
    folder, signing = settings.keys_path.resolve(), settings.signing_path.resolve() / PRIVATE_NAME
    if not signing.exists():
        yield _no_signing_key(signing.parent, alone=signing.parent != folder)
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


def _no_signing_key(folder: Path, *, alone: bool) -> Finding:
    """``alone``: the folder is for the signing key, and each process may see a part of it."""
    if (folder / PUBLIC_NAME).exists() and alone:
        return warn(
            AREA,
            f"{folder} has the public half of the signing key alone",
            f"Serving needs no more; control and the loop need {PRIVATE_NAME}.",
        )
    if (folder / PUBLIC_NAME).exists():
        return fail(
            AREA,
            f"{folder} has the public half of the signing key alone",
            "Put signing.pem back: with another key every approval so far stops counting.",
        )
    place = nearest_folder(folder)
    if not place.is_dir() or not os.access(place, os.W_OK):
        return fail(
            AREA,
            f"no signing key in {folder}, and none can be made there",
            "`tacit keys signing FOLDER` makes one; give it to control and the loop.",
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
    half = path.with_name(PUBLIC_NAME)
    if half.exists() and half.read_bytes() != public:
        return warn(
            AREA,
            f"{half} does not belong to {path.name}",
            "It is written anew at the start. If you did not change the key, find out who did.",
        )
    return ok(AREA, f"{path} signs")


def _private(path: Path) -> Iterator[Finding]:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    # A secret that is mounted belongs to root; its group is how this user gets to read it.
    allowed = 0 if found.st_uid == os.geteuid() else stat.S_IRGRP
    if mode & _OTHERS & ~allowed:
        yield fail(AREA, f"{path} has mode {mode:04o}: others can reach it", f"chmod 600 {path}")
