"""Secrets in a text: keys, tokens, passwords.

The shapes of issued keys are those of detect-secrets, whose plugins are asked for their patterns
and never for verification, which would send the key to its issuer. Its entropy plugins are not
used: in prose and code they take digests, ids and file names. Its keyword plugin wants quotes
around the value, which people leave out, so assignments are matched here.
"""

import re
from collections.abc import Iterator
from functools import cache

from collector.redaction.spans import Found, pieces

_PIECE = 8_192
_OVERLAP = 1_024
_MIN_SECRET = 16

_OWN = re.compile(
    # Whole blocks, up to the next line of dashes; detect-secrets marks their first line alone.
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){0,20000}"
    r"-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    # Prefixes younger than detect-secrets, or of which it knows one form: OpenAI, Anthropic and
    # Stripe test keys, fine-grained GitHub tokens, Hugging Face, Google, Slack, npm, Standard
    # Webhooks, and Tacit's own.
    r"|\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]{2,10}[-_]){0,3}[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\bglpat-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{30,}"
    r"|\bAIza[0-9A-Za-z_-]{35}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{20,}"
    r"|\bwhsec_[A-Za-z0-9+/=]{16,}|\btacit\.[0-9a-f]{12}\.[A-Za-z0-9_-]{40,}"
    # Encrypted and opaque tokens have a middle part that is no JSON; detect-secrets wants JSON.
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{5,2000}"
)
_ASSIGNED = re.compile(
    r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{16,}"
    r"|(?<=_authToken=)[^\s\"']{6,}"
    r"|(?:pass(?:word|wd|phrase)|api[_-]?key|secret|token)[\"']?"
    r"(?:\s{0,2}[:=]\s{0,2}[\"']|: ?|=)(?P<value>[^\s\[\](){},;\"'<>]{6,})"
)
_HAS_KEYWORD = re.compile(r"(?i)pass(?:w|ph)|key|secret|token|bearer|BEGIN ")
_HAS_LONG_WORD = re.compile(r"[A-Za-z0-9_\-+/=.]{20}")
_PLUGINS = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "cloudant.CloudantDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "ibm_cloud_iam.IbmCloudIamDetector",
    "ibm_cos_hmac.IbmCosHmacDetector",
    "mailchimp.MailchimpDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "softlayer.SoftlayerDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
"""All line plugins but: entropy and keyword (above), public IPs (personal data), private keys, JWT,
npm and OpenAI (their patterns take quadratic time; own shapes), basic auth (asked below)."""


def find_secrets(text: str) -> Iterator[Found]:
    """Where ``text`` holds a secret."""
    has_long_word = _HAS_LONG_WORD.search(text) is not None
    if has_long_word or _HAS_KEYWORD.search(text):
        yield from _own(text)
    for start, piece in pieces(text, size=_PIECE, overlap=_OVERLAP):
        if has_long_word:
            yield from _issued(piece, start)
        if "://" in piece:
            yield from _in_urls(piece, start)


def _own(text: str) -> Iterator[Found]:
    for match in _OWN.finditer(text):
        yield Found(match.start(), match.end(), "SECRET")
    for match in _ASSIGNED.finditer(text):
        # What follows "bearer " and the like has no name: it is the whole match.
        start, end = match.span("value") if match["value"] is not None else match.span()
        if match["value"] is None or _looks_assigned(match["value"]):
            yield Found(start, end, "SECRET")


def _looks_assigned(value: str) -> bool:
    # "token: please" is prose, "token=os.environ" is code; a value has a digit or is no one word.
    return not value.rstrip(".!?").replace(".", "").replace("_", "").isalpha() or len(value) >= 20


def _issued(piece: str, start: int) -> Iterator[Found]:
    for pattern in _issued_patterns():
        for match in pattern.finditer(piece):
            left, right = _secret_part(match)
            if any(c.isdigit() for c in piece[left:right]):
                yield Found(start + left, start + right, "SECRET")


def _in_urls(piece: str, start: int) -> Iterator[Found]:
    for match in _basic_auth_pattern().finditer(piece):
        yield Found(start + match.start(1), start + match.end(1), "SECRET")


def _secret_part(match: re.Match[str]) -> tuple[int, int]:
    """Of ``key = "secret"`` the secret; other patterns have no group or a short one."""
    groups = [match.span(i) for i in range(1, (match.re.groups or 0) + 1)]
    start, end = max(groups, key=lambda span: span[1] - span[0], default=(0, 0))
    return (start, end) if end - start >= _MIN_SECRET else match.span()


@cache
def _issued_patterns() -> tuple[re.Pattern[str], ...]:
    from importlib import import_module

    patterns: list[re.Pattern[str]] = []
    for name in _PLUGINS:
        module, plugin = name.split(".")
        patterns += getattr(import_module(f"detect_secrets.plugins.{module}"), plugin).denylist
    return tuple(patterns)


@cache
def _basic_auth_pattern() -> re.Pattern[str]:
    from detect_secrets.plugins.basic_auth import BasicAuthDetector

    pattern: re.Pattern[str] = BasicAuthDetector.denylist[0]
    return pattern
