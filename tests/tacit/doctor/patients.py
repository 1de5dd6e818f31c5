"""Settings to examine, suites, and servers that answer in one way."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tacit.config import Settings, load_settings
from tacit.doctor.findings import Check, Finding, Status, ask
from tacit.ports import free_port


def settings_in(home: Path, *overrides: str) -> Settings:
    ports = [f"{name}={free_port()}" for name in ("collector.port", "deploy.port", "tracking.port")]
    return load_settings(home=home, overrides=[*ports, *overrides])


def findings(check: Check, settings: Settings, *, timeout_s: float = 20) -> list[Finding]:
    return ask("area", check, settings, timeout_s=timeout_s)


def only(found: list[Finding], status: Status) -> Finding:
    """The one finding of ``status``."""
    [worst] = [finding for finding in found if finding.status is status]
    assert worst.mend
    return worst


def only_ok(found: list[Finding]) -> Finding:
    """The one finding, with which all is well."""
    [finding] = found
    assert finding.status is Status.OK
    return finding


class Answers(BaseHTTPRequestHandler):
    status, body = 200, b'{"status":"ok"}'
    allowed: tuple[str, ...] = ()

    def do_GET(self) -> None:
        self.send_response(200 if self.path in self.allowed else self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Silence."""


def serving(handler: type[Answers]) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def write_suite(folder: Path, *, items: int, kind: str = "regression", cluster: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s.yaml").write_text(f"name: s\nkind: {kind}\nitems: s.jsonl\n")
    rows = (
        {"prompt": f"p{n}", "expected": "a", "cluster": cluster and f"{cluster}{n // 2}"}
        for n in range(items)
    )
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
