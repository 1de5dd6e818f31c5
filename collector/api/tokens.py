"""Feedback tokens: let a web page send feedback on one answer, for one person, without a key.

    product's server ──key──▶ POST /v1/feedback/tokens ──token──▶ page ──token──▶ POST /v1/feedback

A token is a JWT (RFC 7519) signed with a secret derived from the master secret. It names the key
that issued it, and falls with that key. It may send feedback and do nothing else.
"""

import hashlib
import math
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import jwt
from pydantic import ValidationError

from tacit.contracts import Part, utc_now
from tacit.contracts.base import Identifier, Name
from tacit.errors import NotAuthenticatedError
from tacit.keys import KeyStore
from tacit.principal import Principal, Scope
from tacit.secrets_file import MasterSecret

ALGORITHM = "HS256"
AUDIENCE = "tacit.feedback"
ISSUER = "tacit"
PURPOSE = "tacit feedback tokens"

FeedbackKind = Literal["correction", "outcome", "preference", "rating", "critique"]


class Grant(Part):
    """What a token allows."""

    key_id: str
    """The key that issues it."""
    source: Name
    policy: Name
    interaction_id: Identifier
    subject_id: Identifier
    kinds: tuple[FeedbackKind, ...] | None = None
    """The kinds of feedback it may send; None for all."""


class Token(NamedTuple):
    """A token and its end."""

    text: str
    expires_at: datetime


class _Claims(Grant):
    iss: str
    aud: str
    jti: str
    exp: int
    """Seconds since the epoch, as all times of a JWT."""
    iat: int


class FeedbackTokens:
    """Issues and verifies tokens; safe to share between threads."""

    def __init__(
        self, master: MasterSecret, keys: KeyStore, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._secret = master.derive(PURPOSE)
        self._key_name = hashlib.sha256(self._secret).hexdigest()[:16]
        self._keys = keys
        self._clock = clock

    def issue(self, grant: Grant, *, ttl_s: float) -> Token:
        """A token for ``grant`` that ends in ``ttl_s`` seconds, to the next whole second."""
        now = self._clock().timestamp()
        claims = _Claims(
            **dict(grant),
            iss=ISSUER,
            aud=AUDIENCE,
            jti=secrets.token_urlsafe(12),
            exp=math.ceil(now + ttl_s),
            iat=int(now),
        )
        text = jwt.encode(
            claims.model_dump(exclude_none=True),
            self._secret,
            algorithm=ALGORITHM,
            headers={"kid": self._key_name},
        )
        return Token(text, datetime.fromtimestamp(claims.exp, UTC))

    def verify(self, text: str) -> Principal:
        """Who may send what with the token ``text``; reads the database.

        Raises NotAuthenticatedError on a token that was altered, has expired, was made for
        something else, or whose key is no longer in force.
        """
        claims = self._claims(text)
        if claims.exp <= self._clock().timestamp():
            raise _refused(f"one that expired at {datetime.fromtimestamp(claims.exp, UTC)}")
        try:
            issuer = self._keys.holder(claims.key_id)
        except NotAuthenticatedError as error:
            # A page must not learn the name of the key.
            raise _refused("one whose key is no longer in force") from error
        return Principal(
            key_id=issuer.key_id,
            name=issuer.name,
            scopes=frozenset({Scope.SEND}),
            source=claims.source,
            policy=claims.policy,
            rate_limit_per_s=issuer.rate_limit_per_s,
            interaction_id=claims.interaction_id,
            subject_id=claims.subject_id,
            kinds=None if claims.kinds is None else frozenset(claims.kinds),
            token_id=claims.jti,
        )

    def _claims(self, text: str) -> _Claims:
        try:
            if jwt.get_unverified_header(text).get("kid") != self._key_name:
                raise _refused("one signed with another secret")
            return _Claims.model_validate(self._verified(text))
        except (jwt.InvalidTokenError, ValidationError) as error:
            raise _refused(_reason(error)) from error

    def _verified(self, text: str) -> dict[str, Any]:
        # Whether it has expired is judged by our own clock, after the signature.
        claims: dict[str, Any] = jwt.decode(
            text,
            self._secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={
                "require": ["exp", "aud", "iss", "jti"],
                "verify_exp": False,
                "verify_iat": False,
            },
        )
        return claims


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.InvalidSignatureError, "one that was altered"),
    (jwt.InvalidAlgorithmError, f"one not signed with {ALGORITHM}"),
    (jwt.InvalidAudienceError, "one made for another audience"),
    (jwt.InvalidIssuerError, "one of another issuer"),
    (jwt.MissingRequiredClaimError, "one that lacks a claim"),
)


def _reason(error: Exception) -> str:
    return next((text for kind, text in _REASONS if isinstance(error, kind)), "a malformed one")


def _refused(got: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(
        "a feedback token in force",
        got=got,
        mend="The product's server gets one from POST /v1/feedback/tokens.",
    )
