"""Findings, and running a check that may hang or raise."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from tacit.config import Settings
from tacit.errors import TacitError


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """It works, or will once something is done that Tacit does by itself or that can wait."""
    FAIL = "fail"
    """Tacit would not start, or would not do what it is for."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    area: str
    status: Status
    found: str
    mend: str = ""

    def as_row(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


Check = Callable[[Settings], Iterable[Finding]]


def ok(area: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(area, Status.OK, found)


def warn(area: str, found: str, mend: str) -> Finding:
    """Something to know."""
    return Finding(area, Status.WARN, found, mend)


def fail(area: str, found: str, mend: str) -> Finding:
    """Something to mend."""
    return Finding(area, Status.FAIL, found, mend)


def failed(area: str, error: TacitError) -> Finding:
    """What an error raised on purpose says."""
    got = f"expected {error.expected}" + (f"; got {error.got}" if error.got else "")
    return fail(area, got, error.mend)


def ask(area: str, check: Check, settings: Settings, *, timeout_s: float) -> list[Finding]:
    """What ``check`` finds; a failure if it raises or takes longer than ``timeout_s``.

    It runs in a daemon thread, so that one which hangs delays neither the others nor the exit.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check(settings))
        except TacitError as error:
            found.append(failed(area, error))
        except Exception as error:  # drivers and other people's code raise what they like
            found.append(fail(area, f"{type(error).__name__}: {error}", "See the message."))

    thread = threading.Thread(target=run, name=f"doctor-{area}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return [*found, fail(area, f"no answer within {timeout_s:g} s", "Is it reachable at all?")]
    return found
