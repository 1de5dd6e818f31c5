"""Delivers webhooks, signed as Standard Webhooks says (https://www.standardwebhooks.com).

The id of a delivery is the same at every try, so a receiver can drop what it has seen. Anything but
a 2xx is tried again with growing waits; 410 Gone ends it at once. Redirects are not followed.
"""

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime

import httpx
from standardwebhooks import Webhook

from gatekeeper.outbox import Outbox
from gatekeeper.tables import WebhookDeliveryRow
from tacit.config import WebhookSettings
from tacit.contracts import utc_now
from tacit.errors import TacitError
from tacit.secrets_file import MasterSecret

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
_MAX_ERROR = 500


class Courier:
    """Follows the ledger and delivers, in a thread of its own."""

    def __init__(
        self,
        outbox: Outbox,
        master: MasterSecret,
        *,
        client: httpx.Client | None = None,
        clock: Callable[[], datetime] = utc_now,
        poll_s: float = 1.0,
    ) -> None:
        self.outbox = outbox
        self._master = master
        self._client = client or httpx.Client(timeout=TIMEOUT_S, follow_redirects=False)
        self._clock = clock
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Courier":
        if self.outbox.endpoints:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=TIMEOUT_S + 1)
        self._client.close()

    def secret(self, name: str) -> str:
        """The ``whsec_…`` that signs what goes to an endpoint."""
        return self._master.webhook_secret(f"outbound {name}")

    def step(self) -> None:
        """Put in what is new, and try what is due."""
        self.outbox.follow(self._clock())
        for delivery_id in self.outbox.due(self._clock()):
            self.deliver(delivery_id)

    def deliver(self, delivery_id: str) -> None:
        """One try at a delivery that is due; does nothing if another process makes it."""
        row = self.outbox.claim(delivery_id, self._clock())
        if row is None:
            return
        status, error = self._post(row, self.outbox.endpoints[row.endpoint])
        if error is not None:
            logger.warning("webhook %s, try %d: %s", delivery_id, row.attempts, error)
        self.outbox.settle(row, self._clock(), status=status, error=error)

    def _post(
        self, row: WebhookDeliveryRow, endpoint: WebhookSettings
    ) -> tuple[int | None, str | None]:
        url = endpoint.url or os.environ.get(endpoint.url_variable or "")
        if not url:
            return None, f"the environment variable {endpoint.url_variable} is not set"
        now = self._clock()
        headers = {
            "content-type": "application/json",
            "webhook-id": row.delivery_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.secret(row.endpoint)).sign(
                row.delivery_id, now, row.payload
            ),
        }
        try:
            answer = self._client.post(url, content=row.payload.encode(), headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without the address: of some services it is a secret.
            return None, type(error).__name__
        if answer.is_success:
            return answer.status_code, None
        return answer.status_code, f"{answer.status_code}: {answer.text[:_MAX_ERROR]}"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except TacitError as error:
                logger.warning("webhooks wait: %s", error)
            except Exception:  # the edge of the thread: it goes on with the next look
                logger.exception("webhooks wait")
            self._stop.wait(self._poll_s)
