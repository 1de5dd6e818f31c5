"""Import of a file with one JSON object a line, read a few hundred lines at a time.

In: the file. Out: events in the service, and ``FILE.rejected.jsonl`` with what could not be taken.
Killed at any moment, it goes on from its bookmark; what was sent behind the bookmark the service
knows, so nothing is there twice.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError
from tacit.imports.bookmark import Bookmark, Place, Tally
from tacit.imports.delivery import CHUNK, Delivery, Draft, Rejects
from tacit.imports.rows import RowRules, answers_of, event_of, id_of, key_of, parse_row
from tacit.remote import Remote

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_ORIGINAL_BYTES = 64 * 1024
"""Of a rejected line, this much is written beside the reason."""
_READ_BYTES = 1024 * 1024
_CHUNK_BYTES = 8 * 1024 * 1024

Advance = Callable[[int, int], None]
"""Told how many bytes are done, and of how many."""


class _Line(NamedTuple):
    number: int
    """From 1."""
    content: bytes
    """Without white space at its ends; the beginning of a line that is too long."""
    end: int
    """Bytes from the beginning of the file."""


def rejected_path(path: Path) -> Path:
    """Where what could not be taken from ``path`` is written."""
    return path.with_name(f"{path.name}.rejected.jsonl")


def import_jsonl(
    path: Path, remote: Remote, rules: RowRules, bookmarks: Path, *, advance: Advance
) -> Tally:
    """Import ``path``; the tally includes what runs did that were cut off before.

    Raises UnavailableError, RemoteError and NotAllowedError; importing again goes on from there.
    """
    bookmark = Bookmark(bookmarks, identity=_identity(path, remote, rules))
    total = path.stat().st_size
    with path.open("rb") as file:
        place, seen = _resume(file, bookmark.load())
        rejects = Rejects(rejected_path(path), keep_bytes=place.rejected_bytes)
        advance(place.position, total)
        with Delivery(remote, rejects, source=rules.source) as delivery:
            for lines in _chunks(file, place, seen):
                drafts = [d for line in lines if line.content for d in _drafts(line, rules)]
                tally = place.tally
                for start in range(0, len(drafts), CHUNK):
                    tally += delivery.deliver(drafts[start : start + CHUNK])
                place = Place(
                    position=lines[-1].end,
                    num_items=lines[-1].number,
                    digest=seen.hexdigest(),
                    tally=tally,
                    rejected_bytes=rejects.num_bytes,
                )
                bookmark.save(place)
                advance(place.position, total)
    # Done: the next import looks at every line again, those that were rejected too.
    bookmark.clear()
    return place.tally


def _identity(path: Path, remote: Remote, rules: RowRules) -> tuple[str, ...]:
    paths = [f"{field}={where}" for field, where in sorted(rules.paths.items())]
    said = (rules.source, rules.policy, rules.metric)
    return ("jsonl", str(path.resolve()), remote.url, *said, *paths)


def _resume(file: BinaryIO, place: Place) -> tuple[Place, "hashlib._Hash"]:
    """Go to ``place`` if the file is still what it was up to there, else to the beginning."""
    seen = hashlib.sha256()
    left = place.position
    while left and (read := file.read(min(left, _READ_BYTES))):
        seen.update(read)
        left -= len(read)
    if not left and (not place.position or seen.hexdigest() == place.digest):
        return place, seen
    file.seek(0)
    return Place(), hashlib.sha256()


def _chunks(file: BinaryIO, place: Place, seen: "hashlib._Hash") -> Iterator[list[_Line]]:
    """Lines behind ``place``, a few hundred or a few MiB at a time; ``seen`` hashes them."""
    chunk: list[_Line] = []
    num_bytes = 0
    for line in _lines(file, place, seen):
        chunk.append(line)
        num_bytes += len(line.content)
        if len(chunk) == CHUNK or num_bytes > _CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _lines(file: BinaryIO, place: Place, seen: "hashlib._Hash") -> Iterator[_Line]:
    number, end = place.num_items, place.position
    while piece := file.readline(MAX_LINE_BYTES + 1):
        content = piece
        while piece:
            seen.update(piece)
            end += len(piece)
            # The rest of a line that is too long is passed over.
            piece = b"" if piece.endswith(b"\n") else file.readline(MAX_LINE_BYTES + 1)
        number += 1
        yield _Line(number, content.strip(), end)


def _drafts(line: _Line, rules: RowRules) -> list[Draft]:
    """A draft for each answer on the line."""
    original = line.content[:MAX_ORIGINAL_BYTES].decode(errors="replace")
    try:
        answers = answers_of(_row(line), rules)
    except InvalidInputError as error:
        return [Draft({"line": line.number}, None, False, _raiser(error), original)]
    return [_draft(line, rules, name, row, original) for name, row in answers]


def _draft(
    line: _Line, rules: RowRules, name: str | None, row: dict[str, Any], original: str
) -> Draft:
    where: dict[str, Any] = {"line": line.number}
    seed = line.content
    if name is not None:
        where["part"] = name
        seed += b"\0" + name.encode(errors="surrogatepass")
    row_id = f"import-{hashlib.sha256(seed).hexdigest()[:32]}"
    event_key = key_of(row, rules, row_id=row_id)
    return Draft(
        where,
        event_key,
        id_of(row) is not None,
        lambda: event_of(row, rules, row_id=row_id),
        original,
    )


def _row(line: _Line) -> dict[str, Any]:
    if len(line.content) > MAX_LINE_BYTES:
        raise InvalidInputError(f"lines of at most {MAX_LINE_BYTES} bytes", got="a longer one")
    return parse_row(line.content)


def _raiser(error: InvalidInputError) -> Callable[[], FeedbackEvent]:
    def build() -> FeedbackEvent:
        raise error

    return build
