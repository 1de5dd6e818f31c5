"""Keys, tokens and webhooks that are no good: for each row of docs/reference/bad-input.md.

Each function gets a running service, sends what is otherwise a good event, and returns the answer.
"""

import base64
import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from collector.api.tokens import FeedbackTokens, Grant
from collector.client import TacitClient
from tacit.contracts import utc_now
from tacit.errors import TacitError
from tacit.key_rows import ApiKeyRow
from tacit.principal import Scope
from tacit.secrets_file import MasterSecret
from tests.builders import interaction
from tests.collector.service import Senders, Service, body

CREDENTIALS = Senders()


@CREDENTIALS.row("no-key")
def _no_key(service: Service) -> httpx.Response:
    return service.http.post("/v1/feedback", content=body())


@CREDENTIALS.row("empty-key")
def _empty_key(service: Service) -> httpx.Response:
    return service.send(body(), Authorization="Bearer ")


@CREDENTIALS.row("unknown-key")
def _unknown_key(service: Service) -> httpx.Response:
    return service.send(body(), key="tacit.000000000000." + "x" * 43)


@CREDENTIALS.row("other-scheme")
def _other_scheme(service: Service) -> httpx.Response:
    return service.send(body(), Authorization=f"Basic {service.product_key}")


@CREDENTIALS.row("non-ascii-key")
def _non_ascii_key(service: Service) -> httpx.Response:
    headers = {"Authorization": f"Bearer {service.product_key}é".encode("latin-1")}
    return service.http.post("/v1/feedback", content=body(), headers=headers)  # type: ignore[arg-type]


@CREDENTIALS.row("revoked-key")
def _revoked_key(service: Service) -> httpx.Response:
    key = service.product_key
    service.keys.revoke(service.keys.authenticate(key).name)
    return service.send(body(), key=key)


@CREDENTIALS.row("expired-key")
def _expired_key(service: Service) -> httpx.Response:
    key = service.key("brief", expires_at=utc_now() + timedelta(hours=1))
    with service.database.session() as session:
        session.execute(update(ApiKeyRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    return service.send(body(), key=key)


@CREDENTIALS.row("key-without-scope")
def _key_without_scope(service: Service) -> httpx.Response:
    return service.send(body(), key=service.key("reader", scope=Scope.READ))


@CREDENTIALS.row("key-of-another-policy")
def _key_of_another_policy(service: Service) -> httpx.Response:
    return service.send(body(), key=service.key("elsewhere", policy="another"))


@CREDENTIALS.row("empty-environment-key")
def _empty_environment_key(service: Service) -> httpx.Response:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TACIT_API_KEY", "")
        answers: list[httpx.Response] = []

        def pass_on(request: httpx.Request) -> httpx.Response:
            headers = {"Authorization": request.headers.get("Authorization", "")}
            answers.append(
                service.http.post("/v1/feedback", content=request.content, headers=headers)
            )
            return httpx.Response(401, content=answers[-1].content)

        transport = httpx.MockTransport(pass_on)
        client = TacitClient("http://tacit", source="helpdesk", transport=transport)
        client.correct("i-1", "shipping", subject_id="u-1")
        with suppress(TacitError):
            client.close()
    return answers[0]


def token(service: Service, **asked: object) -> str:
    """A feedback token as the product's server gets it."""
    wanted = {"interaction_id": "i-1", "subject_id": "u-1", **asked}
    headers = service.as_(service.product_key)
    answer = service.http.post("/v1/feedback/tokens", json=wanted, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def send_with_token(service: Service, text: str, **fields: Any) -> httpx.Response:
    """An event the token of ``token`` is good for, with some fields replaced."""
    about = {"interaction_id": "i-1", **fields}
    answer: httpx.Response = service.send(body(**about), key=text)
    return answer


def part(text: str, number: int) -> dict[str, Any]:
    """Header (0) or claims (1) of a token."""
    packed = text.split(".")[number]
    return dict(json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))))


def packed(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


@CREDENTIALS.row("expired-token")
def _expired_token(service: Service) -> httpx.Response:
    keys, master = service.keys, MasterSecret.load_or_create(service.settings.keys_path)
    key_id = keys.authenticate(service.product_key).key_id
    grant = {"source": "helpdesk", "policy": "default", "interaction_id": "i-1"}
    tokens = FeedbackTokens(master, keys, clock=lambda: utc_now() - timedelta(hours=2))
    issued = tokens.issue(Grant(key_id=key_id, subject_id="u-1", **grant), ttl_s=3_600)
    return send_with_token(service, issued.text)


@CREDENTIALS.row("altered-token")
def _altered_token(service: Service) -> httpx.Response:
    text = token(service)
    assert send_with_token(service, text).status_code == 202
    header, _, signature = text.split(".")
    claims = packed({**part(text, 1), "subject_id": "u-2"})
    return send_with_token(service, f"{header}.{claims}.{signature}", subject_id="u-2")


@CREDENTIALS.row("unsigned-token")
def _unsigned_token(service: Service) -> httpx.Response:
    text = token(service)
    header = packed({**part(text, 0), "alg": "none"})
    return send_with_token(service, f"{header}.{text.split('.')[1]}.")


@CREDENTIALS.row("token-of-another-service")
def _token_of_another_service(service: Service) -> httpx.Response:
    claims = part(token(service), 1)
    foreign = jwt.encode(claims, "x" * 43, algorithm="HS256", headers={"kid": "0" * 16})
    return send_with_token(service, foreign)


@CREDENTIALS.row("token-of-a-revoked-key")
def _token_of_a_revoked_key(service: Service) -> httpx.Response:
    text = token(service)
    service.keys.revoke(service.keys.authenticate(service.product_key).name)
    return send_with_token(service, text)


@CREDENTIALS.row("token-for-another-interaction")
def _token_for_another_interaction(service: Service) -> httpx.Response:
    return send_with_token(service, token(service), interaction_id="i-2")


@CREDENTIALS.row("token-for-another-subject")
def _token_for_another_subject(service: Service) -> httpx.Response:
    return send_with_token(service, token(service), subject_id="u-2")


@CREDENTIALS.row("token-with-inline-interaction")
def _token_with_inline_interaction(service: Service) -> httpx.Response:
    return send_with_token(service, token(service), interaction=interaction())


@CREDENTIALS.row("token-of-another-kind")
def _token_of_another_kind(service: Service) -> httpx.Response:
    return send_with_token(service, token(service, kinds=["rating"]))


@CREDENTIALS.row("token-that-mints")
def _token_that_mints(service: Service) -> httpx.Response:
    wanted = {"interaction_id": "i-2", "subject_id": "u-2"}
    headers = service.as_(token(service))
    return service.http.post("/v1/feedback/tokens", json=wanted, headers=headers)


@CREDENTIALS.row("token-that-reads")
def _token_that_reads(service: Service) -> httpx.Response:
    text = token(service)
    assert send_with_token(service, text).status_code == 202
    return service.http.get("/v1/feedback/e-1", headers=service.as_(text))


def deliver(
    service: Service,
    *,
    at: datetime | None = None,
    source: str = "helpdesk",
    **headers: str | bytes,
) -> httpx.Response:
    """An event from a third party under ``wh-1``, signed as it must be but for ``headers``."""
    if not service.webhook:
        secret = service.key("crm", kind="webhook", source="helpdesk")
        (info,) = [info for info in service.keys.in_force() if info.name == "crm"]
        service.webhook = (secret, str(info.path))
    secret, path = service.webhook
    content, moment = body("e-1", source=source), at or utc_now()
    told = {
        "webhook-id": "wh-1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("wh-1", moment, content),
    }
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.post(path, content=content, headers=told)


@CREDENTIALS.row("repeated-delivery")
def _repeated_delivery(service: Service) -> httpx.Response:
    first = deliver(service)
    again = deliver(service)
    assert again.content == first.content
    return again


@CREDENTIALS.row("old-delivery")
def _old_delivery(service: Service) -> httpx.Response:
    return deliver(service, at=utc_now() - timedelta(minutes=6))


@CREDENTIALS.row("delivery-from-the-future")
def _delivery_from_the_future(service: Service) -> httpx.Response:
    return deliver(service, at=utc_now() + timedelta(minutes=6))


@CREDENTIALS.row("wrong-signature")
def _wrong_signature(service: Service) -> httpx.Response:
    return deliver(service, webhook_signature="v1," + base64.b64encode(b"x" * 32).decode())


@CREDENTIALS.row("signature-of-another-delivery")
def _signature_of_another_delivery(service: Service) -> httpx.Response:
    return deliver(service, webhook_id="wh-2")


@CREDENTIALS.row("unreadable-signature")
def _unreadable_signature(service: Service) -> httpx.Response:
    return deliver(service, webhook_signature="neither version nor base64")


@CREDENTIALS.row("unsigned-delivery")
def _unsigned_delivery(service: Service) -> httpx.Response:
    return deliver(service, webhook_signature="")


@CREDENTIALS.row("unknown-webhook")
def _unknown_webhook(service: Service) -> httpx.Response:
    deliver(service)
    secret, _ = service.webhook
    service.webhook = (secret, "/v1/webhooks/000000000000")
    return deliver(service)


@CREDENTIALS.row("revoked-webhook")
def _revoked_webhook(service: Service) -> httpx.Response:
    assert deliver(service).status_code == 202
    service.keys.revoke("crm")
    return deliver(service)


@CREDENTIALS.row("delivery-of-another-source")
def _delivery_of_another_source(service: Service) -> httpx.Response:
    return deliver(service, source="other")


@CREDENTIALS.row("webhook-secret-as-key")
def _webhook_secret_as_key(service: Service) -> httpx.Response:
    deliver(service)
    secret, _ = service.webhook
    answer: httpx.Response = service.send(body("e-2"), key=secret)
    return answer
