"""What a user is told when a Kafka cluster does not let Tacit in; TLS and SASL against brokers."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Semaphore
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError
from pydantic import ValidationError

from collector.streams.kafka import KafkaStream
from collector.streams.kafka_connection import FailTogether, KafkaConnection, close_producer
from tacit.config import KafkaSettings
from tacit.errors import ConfigError, UnavailableError
from tacit.ports import free_port
from tests.collector.brokers import Broker
from tests.collector.certificates import Identity, authority, signed_by

USER, PASSWORD = "TACIT_KAFKA_USER", "TACIT_KAFKA_PASSWORD"

SEND_AND_READ = """
import json, os, sys, threading
from collector.streams.kafka import KafkaStream
from tacit.config import KafkaSettings
from tacit.errors import UnavailableError

stream = KafkaStream(KafkaSettings.model_validate_json(sys.argv[1]))
try:
    stream.append("t", [("u", b"sent")])
    records = stream.read("t", {}, limit=10, timeout_s=0.0)
    print(json.dumps([r.value.decode() for r in records]))
except UnavailableError as error:
    print(json.dumps({"error": str(error), "threads": [t.name for t in threading.enumerate()]}))
stream.close()
"""


def send_and_read(settings: KafkaSettings, **environment: str) -> Any:
    """What a process with these settings gets: the values it read, or the error.

    A process of its own: kafka-python 3.0.12 forgets sockets whose TLS handshake failed.
    """
    command = [sys.executable, "-W", "ignore", "-c", SEND_AND_READ, settings.model_dump_json()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Guarded(NamedTuple):
    """A broker that asks who comes, on two ports: SASL over TLS, and TLS with certificates."""

    sasl: str
    mutual: str
    ca: Identity
    folder: Path

    def settings(self, **fields: Any) -> KafkaSettings:
        """What lets user ``tacit`` in."""
        values = {
            "bootstrap_servers": self.sasl,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.folder / "ca.crt",
            "bootstrap_timeout_s": 3,
        }
        return KafkaSettings.model_validate({**values, **fields})


def _properties(ca: Identity, server: Identity, mutual_port: int) -> list[str]:
    module = "org.apache.kafka.common.security"
    users = 'username="admin" password="a" user_admin="a" user_tacit="secret"'
    names = "listener.name.sasl_ssl"
    return [
        "listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
        f"MUTUAL://127.0.0.1:{mutual_port}",
        "listener.security.protocol.map=SASL_SSL:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=SASL_SSL",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        f"{names}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {users};",
        f"{names}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;",
        f"{names}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;",
        "listener.name.mutual.ssl.client.auth=required",
        "ssl.keystore.type=PEM",
        "ssl.truststore.type=PEM",
        f"ssl.keystore.key={_one_line(server.key_pem)}",
        f"ssl.keystore.certificate.chain={_one_line(server.certificate_pem)}",
        f"ssl.truststore.certificates={_one_line(ca.certificate_pem)}",
    ]


def _one_line(pem: str) -> str:
    return pem.replace("\n", "\\n")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The broker, and its authority's certificate as ``ca.crt``."""
    folder = tmp_path_factory.mktemp("guarded")
    ca, mutual_port = authority(), free_port()
    ca.write(folder, "ca")
    authority("another").write(folder, "another")
    properties = _properties(ca, signed_by(ca, "broker"), mutual_port)
    broker = Broker(folder / "broker", properties=properties).start()
    yield Guarded(broker.address, f"127.0.0.1:{mutual_port}", ca, folder)
    broker.remove()


@pytest.mark.kafka
def test_sasl_plain_over_tls(guarded: Guarded) -> None:
    good = {USER: "tacit", PASSWORD: "secret"}
    assert send_and_read(guarded.settings(), **good)[-1] == "sent"


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_over_tls(guarded: Guarded, mechanism: str) -> None:
    _add_scram_user(guarded, mechanism)
    settings = guarded.settings(sasl_mechanism=mechanism)
    good = {USER: f"user-{mechanism}", PASSWORD: "salted"}
    assert send_and_read(settings, **good)[-1] == "sent"
    said = send_and_read(settings, **{**good, PASSWORD: "pepper"})["error"]
    assert PASSWORD in said
    assert "sasl_mechanism" in said


def _add_scram_user(guarded: Guarded, mechanism: str) -> None:
    import ssl

    from kafka import KafkaAdminClient
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    admin = KafkaAdminClient(
        bootstrap_servers=guarded.sasl,
        security_protocol="SASL_SSL",
        ssl_context=ssl.create_default_context(cafile=guarded.folder / "ca.crt"),
        sasl_mechanism="PLAIN",
        sasl_plain_username="admin",
        sasl_plain_password="a",
    )
    kind = ScramMechanism[mechanism.replace("-", "_")]
    user = UserScramCredentialUpsertion(f"user-{mechanism}", kind, "salted", iterations=4096)
    admin.alter_user_scram_credentials([user])
    admin.close()


@pytest.mark.kafka
def test_wrong_password_says_what_to_check_and_leaves_no_thread(guarded: Guarded) -> None:
    said = send_and_read(guarded.settings(), **{USER: "tacit", PASSWORD: "wrong"})
    assert guarded.sasl in said["error"]
    assert PASSWORD in said["error"]
    assert "wrong" not in said["error"].replace("a wrong password", "")
    assert [name for name in said["threads"] if name.startswith("kafka")] == []


@pytest.mark.kafka
def test_authority_that_is_not_trusted_is_named(guarded: Guarded) -> None:
    settings = guarded.settings(ssl_cafile=guarded.folder / "another.crt")
    said = send_and_read(settings, **{USER: "tacit", PASSWORD: "secret"})["error"]
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "ssl_cafile" in said


@pytest.mark.kafka
def test_host_name_is_checked_unless_told_otherwise(guarded: Guarded) -> None:
    port = guarded.sasl.rpartition(":")[2]
    secrets = {USER: "tacit", PASSWORD: "secret"}
    by_name = {"bootstrap_servers": f"localhost:{port}"}  # the certificate names 127.0.0.1 alone
    said = send_and_read(guarded.settings(**by_name), **secrets)["error"]
    assert "ssl_check_hostname" in said
    assert send_and_read(guarded.settings(**by_name, ssl_check_hostname=False), **secrets)


@pytest.mark.kafka
def test_clients_may_show_a_certificate_instead_of_a_password(guarded: Guarded) -> None:
    certificate, key = signed_by(guarded.ca, "tacit", host=None).write(guarded.folder, "client")
    by_certificate = {"bootstrap_servers": guarded.mutual, "security_protocol": "SSL"}
    shown = {"ssl_certfile": certificate, "ssl_keyfile": key}
    assert send_and_read(guarded.settings(**by_certificate, **shown))[-1] == "sent"
    said = send_and_read(guarded.settings(**by_certificate))["error"]
    assert "ssl_certfile" in said


@pytest.mark.kafka
def test_port_that_speaks_tls_is_told_from_a_cluster_that_is_away(guarded: Guarded) -> None:
    said = send_and_read(KafkaSettings(bootstrap_servers=guarded.sasl, bootstrap_timeout_s=2))
    assert "security_protocol" in said["error"]


def test_cluster_that_is_away_is_named_and_leaves_no_thread() -> None:
    address = f"127.0.0.1:{free_port()}"
    said = send_and_read(KafkaSettings(bootstrap_servers=address, bootstrap_timeout_s=0.5))
    assert address in said["error"]
    assert "REFUSED" in said["error"]
    assert [name for name in said["threads"] if name.startswith("kafka")] == []


KEEP_TRYING = """
import json, os, sys
from collector.streams.kafka import KafkaStream
from tacit.config import KafkaSettings
from tacit.errors import UnavailableError

stream = KafkaStream(KafkaSettings(bootstrap_servers=sys.argv[1], bootstrap_timeout_s=0.5))
num_open = []
for _ in range(8):
    try:
        stream.append("t", [("u", b"x")])
    except UnavailableError:
        num_open.append(len(os.listdir("/proc/self/fd")))
print(json.dumps(num_open))
"""


def test_outage_does_not_use_up_the_files_a_process_may_open() -> None:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-W", "ignore", "-c", KEEP_TRYING, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    num_open = json.loads(done.stdout)
    assert len(num_open) == 8
    assert num_open[-1] <= num_open[0] + 2, num_open


def test_host_that_no_name_server_knows_is_unavailable() -> None:
    settings = KafkaSettings(bootstrap_servers="no-such-host.invalid:9092", bootstrap_timeout_s=0.5)
    assert "no-such-host.invalid" in send_and_read(settings)["error"]


def test_callers_that_wait_for_one_failure_share_it_and_later_ones_try_again() -> None:
    asked, let_fail = Semaphore(0), Event()

    def clock() -> float:
        asked.release()
        return monotonic()

    together = FailTogether(clock=clock)

    def attempt() -> str:
        try:
            with together.opening():
                assert let_fail.wait(20)
                raise UnavailableError("a cluster", got="none")
        except UnavailableError as error:
            return error.got

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(attempt)
        assert asked.acquire(timeout=20)
        waiting = [pool.submit(_shared_failure, together) for _ in range(7)]
        assert all(asked.acquire(timeout=20) for _ in waiting)
        let_fail.set()
        assert {call.result(20) for call in [first, *waiting]} == {"none"}
    with together.opening():
        pass  # who comes later finds it open


def test_who_waits_to_close_is_not_told_of_a_failure_to_open() -> None:
    away = KafkaConnection(KafkaSettings()).unavailable(KafkaTimeoutError("nobody"))
    stream, inside, let_fail = KafkaStream(KafkaSettings()), Event(), Event()

    def fail() -> None:
        with suppress(UnavailableError), stream._producing.opening():
            inside.set()
            assert let_fail.wait(20)
            raise away

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(fail)
        assert inside.wait(20)
        closing = pool.submit(stream.close)
        while not stream._closed:
            sleep(0)
        let_fail.set()
        assert failing.result(20) is None
        assert closing.result(20) is None


def _shared_failure(together: FailTogether) -> str:
    with pytest.raises(UnavailableError) as caught, together.opening():
        raise AssertionError("this one must not try for itself")
    return caught.value.got


def test_missing_credentials_are_a_setting_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, "tacit")
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(ConfigError, match=PASSWORD):
        KafkaStream(KafkaSettings(security_protocol="SASL_PLAINTEXT"))


def _missing(folder: Path) -> Path:
    return folder / "missing.crt"


def _no_pem(folder: Path) -> Path:
    path = folder / "no.pem"
    path.write_text("this is no certificate")
    return path


@pytest.mark.parametrize("make_file", [_missing, _no_pem])
def test_file_that_is_no_certificate_is_a_setting_to_mend(
    make_file: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make_file(tmp_path)
    for field in ("ssl_cafile", "ssl_certfile"):
        settings = KafkaSettings.model_validate({"security_protocol": "SSL", field: path})
        with pytest.raises(ConfigError, match=path.name):
            KafkaStream(settings)


def test_encrypted_key_takes_its_password_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    client = signed_by(authority(), "tacit", host=None)
    certificate, key = client.write(tmp_path, "client")
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    key.write_bytes(client.key.private_bytes(*form))
    settings = KafkaSettings(security_protocol="SSL", ssl_certfile=certificate, ssl_keyfile=key)
    monkeypatch.setenv("TACIT_KAFKA_KEY_PASSWORD", "open sesame")
    KafkaStream(settings).close()
    monkeypatch.setenv("TACIT_KAFKA_KEY_PASSWORD", "open sesam")
    with pytest.raises(ConfigError, match="TACIT_KAFKA_KEY_PASSWORD"):
        KafkaStream(settings)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"ssl_cafile": "ca.crt"}, "security_protocol"),
        ({"security_protocol": "SASL_PLAINTEXT", "ssl_certfile": "c.crt"}, "security_protocol"),
        ({"security_protocol": "SSL", "ssl_keyfile": "c.key"}, "ssl_certfile"),
    ],
)
def test_tls_settings_that_would_be_ignored_are_refused(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        KafkaSettings.model_validate(fields)


def test_producer_that_cannot_deliver_is_closed_in_time_and_leaves_no_thread(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker()
    connection = KafkaConnection(KafkaSettings(bootstrap_servers=broker.address))
    admin = connection.admin()
    admin.create_topics({"t": {"num_partitions": 1}}, wait_for_metadata=True)
    admin.close()
    producer = connection.producer()
    producer.send("t", b"delivered").get(timeout=20)
    broker.pause()
    pending = producer.send("t", b"never delivered")
    close_producer(producer, timeout_s=0.5)
    with pytest.raises(KafkaError):
        pending.get(timeout=1)
    assert not producer._sender.is_alive()
    del producer
    gc.collect()  # a finaliser that raises fails the test
