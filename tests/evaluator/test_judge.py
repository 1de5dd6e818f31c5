"""Checker ``judge`` against an endpoint of our own: what it asks, what it takes for an answer."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from evaluator.checkers import build_checker
from tacit.contracts import CheckerSpec
from tacit.errors import EvaluationError


class Endpoint:
    """An OpenAI-compatible server that says PASS to answers with “depot” in them."""

    def __init__(self) -> None:
        self.model = "judge-2026-01"
        self.says: str | None = None
        self.asked: list[dict[str, Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = json.dumps(endpoint.reply(json.loads(self.rfile.read(size)))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        answer = request["messages"][-1]["content"].split("<answer>")[1]
        said = self.says if self.says is not None else ("PASS" if "depot" in answer else "FAIL")
        message = {"role": "assistant", "content": said}
        return {
            "id": "c-1",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }

    def spec(self, **options: str) -> CheckerSpec:
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return CheckerSpec(
            type="judge", options={"base_url": url, "model": "judge-2026-01", **options}
        )


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


def test_the_judge_sees_answer_and_rubric(endpoint: Endpoint) -> None:
    check = build_checker(endpoint.spec())
    assert check("It is at the depot.", "says the parcel is at the depot") == 1
    assert check("No idea.", "says the parcel is at the depot") == 0
    (first, _) = endpoint.asked
    assert first["model"] == "judge-2026-01"
    assert first["temperature"] == 0
    assert "says the parcel" in first["messages"][-1]["content"]


def test_an_empty_answer_fails_unasked(endpoint: Endpoint) -> None:
    assert build_checker(endpoint.spec())("  ", "anything") == 0
    assert endpoint.asked == []


def test_another_model_behind_the_name_is_no_judge(endpoint: Endpoint) -> None:
    endpoint.model = "judge-2026-02"
    with pytest.raises(EvaluationError, match="judge-2026-02"):
        build_checker(endpoint.spec())("at the depot", "x")
    assert build_checker(endpoint.spec(pinned="judge-2026-02"))("at the depot", "x") == 1


@pytest.mark.parametrize("says", ["", "maybe", "PASS and FAIL"])
def test_anything_but_a_verdict_raises(endpoint: Endpoint, says: str) -> None:
    endpoint.says = says
    with pytest.raises(EvaluationError, match="PASS or FAIL"):
        build_checker(endpoint.spec())("at the depot", "x")
