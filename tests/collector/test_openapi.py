"""The control application does what its OpenAPI says, and never answers with a 5xx.

Schemathesis makes requests up from the description, the same ones in every run: good ones with an
admin key, with a product's and with none, and bad ones.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from collector.ingest import interactions_topic
from tacit.config import load_settings
from tacit.database import Database
from tacit.principal import Scope
from tests.builders import recorded
from tests.collector.service import Disk, Service, body, opened
from tests.examples import num_examples

ERROR = {"type", "expected", "got", "mend"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    "POST /v1/feedback",
    "GET /v1/feedback/{event_id}",
    "POST /v1/feedback/known",
    "POST /v1/feedback/tokens",
    "POST /v1/webhooks/{endpoint}",
    "GET /v1/status",
    "GET /v1/quarantine",
    "GET /v1/quarantine/{source}/{event_id}",
    "POST /v1/quarantine/release",
    "POST /v1/quarantine/drop",
    "GET /v1/dead-letters",
    "GET /v1/dead-letters/{letter}",
    "POST /v1/dead-letters/replay",
    "POST /v1/dead-letters/drop",
]
WITHOUT_INPUT = {"GET /v1/status"}
NDJSON = "application/x-ndjson"
QUICK = settings(
    max_examples=num_examples(4),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database) -> Iterator[Service]:
    """A service with an event of each fate."""
    overrides = ["collector.screening.holdout_share=0"]
    with opened(load_settings(home=tmp_path, overrides=overrides), Disk()) as service:
        foreign = recorded("i-1", source="other").model_dump_json().encode()
        service.stream.append(interactions_topic(service.settings), [("k", foreign)])
        service.send(f"{body('e-1')}\n{body('e-2', interaction_id='i-1')}", Content_Type=NDJSON)
        service.produce(b"not json", b"\xff")
        service.screen()
        yield service


def operation_of(service: Service, name: str) -> Any:
    method, path = name.split()
    schema = schemathesis.openapi.from_asgi("/openapi.json", service.app)
    return schema[path][method]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_does_as_described(service: Service, name: str) -> None:
    operation = operation_of(service, name)
    admin = service.as_(service.key("root", scope=Scope.ADMIN))

    @QUICK
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def call_well(case: Any) -> None:
        send_to_our_line(case.body)
        for headers in (admin, service.as_(service.product_key), {}):
            check(case, headers)

    @QUICK
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def call_badly(case: Any) -> None:
        check(case, admin)

    call_well()
    if name not in WITHOUT_INPUT:
        call_badly()


def check(case: Any, headers: dict[str, str]) -> None:
    """Send ``case``: the answer is described, and an error has the one form."""
    answer = case.call(headers=headers)
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == ERROR


def send_to_our_line(sent: Any) -> None:
    """Nearly every made-up event is for a policy line that is not there; make them be for ours."""
    for event in sent if isinstance(sent, list) else [sent]:
        if isinstance(event, dict) and "policy" in event:
            event["policy"] = "default"


def test_every_operation_of_the_collector_is_tried(service: Service) -> None:
    described = service.http.get("/openapi.json").json()["paths"]
    ours = re.compile(r"/v1/(feedback|webhooks|status|quarantine|dead-letters)")
    found = {
        f"{method.upper()} {path}"
        for path, methods in described.items()
        for method in methods
        if ours.match(path)
    }
    assert found == set(OPERATIONS)
