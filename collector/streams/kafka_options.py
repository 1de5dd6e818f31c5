"""How to reach a Kafka cluster: from settings to the options of its clients.

User and passwords come from TACIT_KAFKA_USER, TACIT_KAFKA_PASSWORD and TACIT_KAFKA_KEY_PASSWORD.
"""

import os
import ssl
from typing import Any

from tacit.config import KafkaSettings
from tacit.errors import ConfigError

_RECONNECT_MAX_MS = 1_000
_USER, _PASSWORD, _KEY_PASSWORD = (
    "TACIT_KAFKA_USER",
    "TACIT_KAFKA_PASSWORD",
    "TACIT_KAFKA_KEY_PASSWORD",
)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of the cluster is opened with.

    Raises ConfigError if credentials are missing or a TLS file cannot be used.
    """
    protocol = settings.security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": protocol,
        "bootstrap_timeout_ms": int(settings.bootstrap_timeout_s * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
    }
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = _secret(_USER, settings)
        options["sasl_plain_password"] = _secret(_PASSWORD, settings)
    if protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    return options


def _secret(name: str, settings: KafkaSettings) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(
            f"{name} in the environment, for {settings.security_protocol}",
            got="nothing",
            mend=f"Set {_USER} and {_PASSWORD}.",
        )
    return value


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            # A function, so that an encrypted key without a password is an error, not a prompt.
            context.load_cert_chain(
                settings.ssl_certfile,
                settings.ssl_keyfile,
                password=lambda: os.environ.get(_KEY_PASSWORD, ""),
            )
    except (OSError, ValueError) as error:
        files = [settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile]
        raise ConfigError(
            "PEM files that can be used, as collector.kafka.ssl_*",
            got=f"{error} in {', '.join(str(file) for file in files if file)}",
            mend=f"The password of an encrypted key is {_KEY_PASSWORD}.",
        ) from error
    context.check_hostname = settings.ssl_check_hostname
    return context


def what_to_check(settings: KafkaSettings, got: str) -> str:
    """How to mend a connection that failed with ``got``."""
    credentials = f"sasl_mechanism and the credentials {_USER} and {_PASSWORD}"
    if "SaslAuthentication" in got:
        return f"Check collector.kafka.{credentials}."
    if "mismatch" in got and "CERTIFICATE" in got:
        return "The broker's certificate must name its host; else set ssl_check_hostname = false."
    if settings.security_protocol == "SSL" or "CERTIFICATE" in got or "[SSL" in got:
        return (
            "Check collector.kafka.ssl_cafile, ssl_certfile where the cluster asks clients for a "
            "certificate, and security_protocol."
        )
    checks = "Check collector.kafka.bootstrap_servers (the address), security_protocol"
    if settings.security_protocol.startswith("SASL"):
        checks += f", {credentials}: a wrong password can look like a cluster that is away"
    return checks + "."
