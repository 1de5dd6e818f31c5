"""The secrets that third parties sign deliveries with, derived anew from the master secret."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from tacit.errors import UnavailableError
from tacit.key_rows import ApiKeyRow, plain_name
from tacit.key_text import secret_hash
from tacit.principal import Principal
from tacit.secrets_file import MASTER_NAME, MasterSecret


class WebhookKey(NamedTuple):
    """Who a webhook's deliveries come from, and the ``whsec_…`` that signs them."""

    principal: Principal
    secret: str


def signers_of(rows: Sequence[ApiKeyRow], master: MasterSecret) -> list[WebhookKey]:
    """The keys in ``rows``, at least one, with their secrets.

    Raises UnavailableError if ``master`` is not the secret that made any of them.
    """
    secrets_of = [(row, master.webhook_secret(row.key_id)) for row in rows]
    signers = [
        WebhookKey(row.principal(), secret)
        for row, secret in secrets_of
        if secrets.compare_digest(row.secret_hash, secret_hash(secret))
    ]
    if not signers:
        raise UnavailableError(
            f"the master secret that made the webhook {plain_name(rows[0].name)}",
            got="another one",
            mend=f"Put <home>/keys/{MASTER_NAME} back, or run `tacit keys rotate` with the "
            "home of the service.",
        )
    return signers
