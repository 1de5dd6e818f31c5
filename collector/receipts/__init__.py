"""Receipts of acknowledged events: in a file of their own, or in PostgreSQL."""

from pathlib import Path

from collector.receipts.base import ReceiptBook, body_hash
from collector.receipts.postgres import PostgresReceipts
from collector.receipts.sqlite import SqliteReceipts
from tacit.config import Settings
from tacit.database import Database

__all__ = ["PostgresReceipts", "ReceiptBook", "SqliteReceipts", "body_hash", "open_receipts"]


def open_receipts(settings: Settings, database: Database) -> ReceiptBook:
    """The receipts of the service that keeps its state in ``database``."""
    if database.engine.dialect.name != "sqlite":
        return PostgresReceipts(database)
    path = settings.home.resolve() / "receipts.db"
    return SqliteReceipts(path, database_path=Path(database.url.removeprefix("sqlite:///")))
