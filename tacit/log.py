"""Logging for every process: plain lines, or JSON when asked, with the cycle in each record."""

import json
import logging
import sys
from contextvars import ContextVar

cycle_id: ContextVar[str] = ContextVar("cycle_id", default="-")
policy_version: ContextVar[str] = ContextVar("policy_version", default="-")


class _ContextFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.cycle_id = cycle_id.get()
        record.policy_version = policy_version.get()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Fields: time, level, logger, message, cycle_id, policy_version, exception if any."""
        row = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "cycle_id": getattr(record, "cycle_id", "-"),
            "policy_version": getattr(record, "policy_version", "-"),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


def configure_logging(*, as_json: bool = False, level: int = logging.INFO) -> None:
    """Send all records of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    plain = "%(asctime)s %(levelname)-7s %(name)s [%(cycle_id)s] %(message)s"
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(plain))
    handler.addFilter(_ContextFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "alembic", "urllib3", "mlflow", "ray"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # While a cluster is away it warns ten times a second; the errors it raises say the same.
    logging.getLogger("kafka").setLevel(logging.ERROR)
