"""Bad input that is more than a body: for each row of docs/reference/bad-input.md how to send it.

Sizes, headers, paths, and storage that refuses. Each function gets a running service and returns
the answer.
"""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from tacit.config import Settings
from tacit.contracts import Correction
from tacit.errors import UnavailableError
from tests.collector.bad_bodies import DATA, NDJSON, altered
from tests.collector.service import Senders, Service, body, opened

REQUESTS = Senders()


def reopened(service: Service, **collector: object) -> AbstractContextManager[Service]:
    """Another process on the same home, with other settings of the collector."""
    tree = service.settings.model_dump()
    tree["collector"] |= collector
    return opened(Settings.model_validate(tree), service.disk)


@REQUESTS.row("large-body")
def _large_body(service: Service) -> httpx.Response:
    limit = service.settings.collector.max_request_bytes
    return service.send(chunk for chunk in [b" " * limit, b" "])  # type: ignore[arg-type]


@REQUESTS.row("large-declared-body")
def _large_declared_body(service: Service) -> httpx.Response:
    def never() -> Iterator[bytes]:
        raise AssertionError("the body must not be read")
        yield b""

    limit = service.settings.collector.max_request_bytes
    return service.send(never(), Content_Length=str(limit + 1))  # type: ignore[arg-type]


@REQUESTS.row("many-events")
def _many_events(service: Service) -> httpx.Response:
    return service.send(b"{}\n" * 1_001, Content_Type=NDJSON)


@REQUESTS.row("gzip-bomb")
def _gzip_bomb(service: Service) -> httpx.Response:
    limit = service.settings.collector.max_request_bytes
    packed = gzip.compress(b" " * (limit + 1))
    assert len(packed) < 6_000
    return service.send(packed, Content_Encoding="gzip")


@REQUESTS.row("broken-gzip")
def _broken_gzip(service: Service) -> httpx.Response:
    return service.send(body(), Content_Encoding="gzip")


@REQUESTS.row("cut-gzip")
def _cut_gzip(service: Service) -> httpx.Response:
    return service.send(gzip.compress(body().encode())[:-4], Content_Encoding="gzip")


@REQUESTS.row("unknown-encoding")
def _unknown_encoding(service: Service) -> httpx.Response:
    return service.send(body(), Content_Encoding="br")


@REQUESTS.row("bad-line")
def _bad_line(service: Service) -> httpx.Response:
    return service.send(f"{body('e-1')}\n{{\n{body('e-2')}", Content_Type=NDJSON)


@REQUESTS.row("wrong-method")
def _wrong_method(service: Service) -> httpx.Response:
    return service.http.put("/v1/feedback", content=body())


@REQUESTS.row("unknown-path")
def _unknown_path(service: Service) -> httpx.Response:
    return service.http.post("/v1/feedbacks", content=body())


@REQUESTS.row("unknown-event")
def _unknown_event(service: Service) -> httpx.Response:
    return service.http.get("/v1/feedback/e-9", headers=service.as_(service.product_key))


@REQUESTS.row("bad-id-in-path")
def _bad_id_in_path(service: Service) -> httpx.Response:
    return service.http.get("/v1/feedback/%00", headers=service.as_(service.product_key))


@REQUESTS.row("binary-cloud-event-without-id")
def _binary_cloud_event_without_id(service: Service) -> httpx.Response:
    return service.send(
        json.dumps(DATA),
        ce_specversion="1.0",
        ce_source="helpdesk",
        ce_type="tacit.feedback.v1",
        ce_subject="u-1",
    )


@REQUESTS.row("rate-limit")
def _rate_limit(service: Service) -> httpx.Response:
    key = service.key("slow", source="helpdesk", rate_limit_per_s=1.0)
    for number in range(100):
        answer: httpx.Response = service.send(body(f"e-{number}"), key=key)
        if answer.status_code != 202:
            return answer
    raise AssertionError("never limited")


def locked(service: Service, name: str) -> httpx.Response:
    """A good event, sent while another process holds the write lock of a file in home."""
    other = sqlite3.connect(service.settings.home / name, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        answer: httpx.Response = service.send(body(), key=service.product_key)
        return answer
    finally:
        other.execute("ROLLBACK")
        other.close()


@REQUESTS.row("database-locked")
def _database_locked(service: Service) -> httpx.Response:
    return locked(service, "tacit.db")


@REQUESTS.row("stream-locked")
def _stream_locked(service: Service) -> httpx.Response:
    return locked(service, "stream.db")


@REQUESTS.row("receipts-locked")
def _receipts_locked(service: Service) -> httpx.Response:
    assert service.send(body("e-0")).status_code == 202
    return locked(service, "receipts.db")


@REQUESTS.row("disk-full")
def _disk_full(service: Service) -> httpx.Response:
    key, _ = service.product_key, service.http  # its files are there before the disk is full
    service.disk.is_full = True
    with reopened(service) as again:
        for number in range(100):
            text = "".join(chr(97 + (number + place) % 26) for place in range(8_000))
            answer = again.send(body(f"e-{number}", feedback=Correction(completion=text)), key=key)
            if answer.status_code != 202:
                return answer
    raise AssertionError("never full")


@REQUESTS.row("stream-away")
def _stream_away(service: Service) -> httpx.Response:
    class Away:
        def append(self, topic: str, records: object) -> None:
            raise UnavailableError("a stream that answers", got="silence")

        def close(self) -> None: ...

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tacit.control.open_stream", lambda _: Away())
        with reopened(service) as again:
            answer = again.send(body(), key=service.product_key)
    # Nothing was acknowledged: the same event is taken once the stream is back.
    assert service.send(body()).status_code == 202
    return answer


@REQUESTS.row("large-record")
def _large_record(service: Service) -> httpx.Response:
    collector = {"stream": "kafka", "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    said = [{"role": "user", "content": "x" * 60_000}] * 17
    large = altered(interaction={"prompt": said, "completion": "x"})
    with reopened(service, **collector) as again:
        return again.send(large, key=service.product_key)
