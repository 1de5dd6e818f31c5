"""Import of what people said in MLflow about traces, a page of traces at a time.

In: an experiment. Out: events in the service, and a file of rejects. A page brings no spans; those
of a trace are read only if somebody said something about it that is not there yet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError, NotFoundError, UnavailableError
from tacit.imports.bookmark import Bookmark, Place, Tally
from tacit.imports.delivery import CHUNK, Delivery, Draft, Rejects
from tacit.imports.traces import Said, TraceRules, event_of, is_human, said_by
from tacit.remote import Remote

PAGE_TRACES = 100
_NO_SUCH_TRACE = frozenset({"BAD_REQUEST", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"})
Advance = Callable[[int], None]
"""Told how many traces are done."""


class _Ends(NamedTuple):
    inputs: Any
    outputs: Any


def import_mlflow(
    experiment: str,
    tracking_uri: str,
    remote: Remote,
    rules: TraceRules,
    folder: Path,
    *,
    advance: Advance,
) -> Tally:
    """Import ``experiment``; the tally includes what runs did that were cut off before.

    The bookmark and the file of rejects are in ``folder``. Raises NotFoundError for an unknown
    experiment, UnavailableError if MLflow or the service is away, RemoteError and NotAllowedError;
    importing again goes on.
    """
    from mlflow import MlflowClient

    with _answering():
        client = MlflowClient(tracking_uri)
    identity = ("mlflow", tracking_uri, experiment, remote.url, repr(rules))
    bookmark = Bookmark(folder, identity=identity)
    place = bookmark.load()
    rejects = Rejects(rejected_path(folder, experiment), keep_bytes=place.rejected_bytes)
    with Delivery(remote, rejects, source=rules.source) as delivery:
        for infos in _pages(client, _experiment_id(client, experiment), since_ms=place.position):
            tally = place.tally
            drafts = _drafts(client, infos, rules)
            for start in range(0, len(drafts), CHUNK):
                tally += delivery.deliver(drafts[start : start + CHUNK])
            place = Place(
                position=infos[-1].timestamp_ms,
                num_items=place.num_items + len(infos),
                rejected_bytes=rejects.num_bytes,
                tally=tally,
            )
            bookmark.save(place)
            advance(place.num_items)
    # Done: the next import looks at every trace again, for people say things later.
    bookmark.clear()
    return place.tally


def rejected_path(folder: Path, experiment: str) -> Path:
    """Where what could not be taken is written."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in experiment)
    return folder / f"{name}.rejected.jsonl"


def _experiment_id(client: Any, name: str) -> str:
    with _answering():
        found = client.get_experiment_by_name(name)
    if found is None:
        raise NotFoundError("an MLflow experiment", got=name, mend="--tracking-uri says where.")
    return str(found.experiment_id)


def _pages(client: Any, experiment_id: str, *, since_ms: int) -> Iterator[list[Any]]:
    """Pages of trace infos, oldest first, from a moment on."""
    token: str | None = None
    while True:
        with _answering():
            page = client.search_traces(
                locations=[experiment_id],
                filter_string=f"timestamp_ms >= {since_ms}",
                order_by=["timestamp_ms ASC"],
                max_results=PAGE_TRACES,
                page_token=token,
                include_spans=False,
            )
        if page:
            yield [trace.info for trace in page]
        token = page.token
        if not token:
            return


def _drafts(client: Any, infos: list[Any], rules: TraceRules) -> list[Draft]:
    return [draft for info in infos for draft in _drafts_of(client, info, rules)]


def _drafts_of(client: Any, info: Any, rules: TraceRules) -> Iterator[Draft]:
    # Several assessments of one trace read its spans once.
    read = lru_cache(maxsize=1)(lambda: _ends(client, info.trace_id))
    for assessment in filter(is_human, info.assessments):
        for said in said_by(assessment, rules):
            where = {"trace_id": info.trace_id, "assessment_id": assessment.assessment_id}
            original = str(said.feedback)
            key = f"{rules.source}/{said.event_id}"
            yield Draft(where, key, False, _builder(said, rules, info.trace_id, read), original)


def _builder(
    said: Said, rules: TraceRules, trace_id: str, read: Callable[[], _Ends]
) -> Callable[[], FeedbackEvent]:
    def build() -> FeedbackEvent:
        if isinstance(said.feedback, InvalidInputError):
            raise said.feedback
        ends = read()
        return event_of(said, rules, trace_id=trace_id, inputs=ends.inputs, outputs=ends.outputs)

    return build


def _ends(client: Any, trace_id: str) -> _Ends:
    from mlflow.exceptions import MlflowException

    try:
        with _answering(refusals=_NO_SUCH_TRACE):
            spans = client.get_trace(trace_id).data.spans
    except MlflowException as error:
        raise InvalidInputError("a trace that can be read", got=str(error)[:200]) from error
    root = next((span for span in spans if span.parent_id is None), None)
    if root is None:
        raise InvalidInputError("a trace with a root span", got=f"{len(spans)} spans")
    return _Ends(root.inputs, root.outputs)


@contextmanager
def _answering(*, refusals: frozenset[str] = frozenset()) -> Iterator[None]:
    """UnavailableError in place of an MlflowException, unless its code is one of ``refusals``."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in refusals:
            raise
        raise UnavailableError(
            "an MLflow that answers",
            got=str(error)[:300],
            mend="Check --tracking-uri, and that its server or database is up; then import again, "
            "which goes on where this stopped.",
        ) from error
