"""Bookmark: how far an import came, in a small file, so that a killed one goes on from there."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ValidationError


class Tally(BaseModel):
    """What became of the items so far."""

    imported: int = 0
    already_there: int = 0
    rejected: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            imported=self.imported + other.imported,
            already_there=self.already_there + other.already_there,
            rejected=self.rejected + other.rejected,
        )


class Place(BaseModel):
    """Where an import is, and what it has done up to there."""

    position: int = 0
    """Bytes of a file that are done; or the moment of a trace in milliseconds."""
    num_items: int = 0
    """Lines or traces that are done."""
    digest: str = ""
    """SHA-256 of the bytes that are done: a file that differs there is begun anew."""
    rejected_bytes: int = 0
    """Length of the file of rejects: what is behind it belongs to work that is done again."""
    tally: Tally = Tally()


class Bookmark:
    """The place of one import, named by all that makes it that import."""

    def __init__(self, folder: Path, *, identity: tuple[str, ...]) -> None:
        name = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]
        self._path = folder / f"{name}.json"
        self._fresh = folder / f"{name}.new"

    def load(self) -> Place:
        """The place kept, or the beginning; an unreadable file is the beginning too.

        That costs time and nothing else: the service knows what it has.
        """
        try:
            return Place.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Place()

    def save(self, place: Place) -> None:
        """Keep ``place``; whoever reads sees the old one or the new one whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fresh.write_text(place.model_dump_json())
        self._fresh.replace(self._path)

    def clear(self) -> None:
        """The next import begins at the beginning."""
        self._fresh.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
