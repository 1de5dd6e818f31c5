"""``tacit import mlflow`` from a real MLflow store: what people said, once, page by page."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Expectation
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from tacit.cli import app
from tacit.contracts import Correction, Critique, Outcome, Rating, RatingScale
from tacit.database import Database
from tacit.errors import InvalidInputError, NotFoundError, UnavailableError
from tacit.imports import mlflow_store
from tacit.imports.mlflow_store import import_mlflow, rejected_path
from tacit.imports.traces import (
    TraceRules,
    completion_of,
    prompt_of,
    read_metrics,
    read_scale,
    said_by,
)
from tacit.ports import free_port
from tacit.remote import Remote
from tests.tacit.importing import ImportService, import_service

pytestmark = [
    # MLflow's own, when it opens its store and when its tracer first loads its types.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType:UserWarning"),
]

RULES = TraceRules("archive", "default", {"user feedback": "helpful"})
QUESTION = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "a"}}]}


class Shop:
    """An MLflow experiment with traces, and a service to import it into."""

    def __init__(self, service: ImportService, uri: str) -> None:
        self.service = service
        self.uri = uri
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("shop")

    def trace(self, inputs: Any = QUESTION, outputs: Any = ANSWER) -> str:
        with mlflow.start_span("chat") as span:
            span.set_inputs(inputs)
            with mlflow.start_span("inner") as inner:
                inner.set_inputs("not this")
            span.set_outputs(outputs)
        mlflow.flush_trace_async_logging()
        return str(span.trace_id)

    def feedback(self, trace: str, name: str, value: Any, *, by: str = "ada", **more: Any) -> str:
        source = AssessmentSource(source_type=more.pop("kind", "HUMAN"), source_id=by)
        made = mlflow.log_feedback(trace_id=trace, name=name, value=value, source=source, **more)
        return str(made.assessment_id)

    def expect(self, trace: str, value: Any) -> str:
        source = AssessmentSource(source_type="HUMAN", source_id="ada")
        made = mlflow.log_expectation(
            trace_id=trace, name="expected_response", value=value, source=source
        )
        return str(made.assessment_id)

    def run(self, rules: TraceRules = RULES) -> tuple[int, int, int]:
        folder = self.folder
        tally = import_mlflow(
            "shop", self.uri, self.service.remote, rules, folder, advance=lambda _: None
        )
        assert list(folder.glob("*.json")) == []
        return tally.imported, tally.already_there, tally.rejected

    @property
    def folder(self) -> Path:
        return self.service.settings.home / "imports"

    def rejects(self) -> list[dict[str, Any]]:
        lines = rejected_path(self.folder, "shop").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def shop(tmp_path: Path, sqlite_database: Database, mlflow_uri: str) -> Iterator[Shop]:
    with import_service(tmp_path, sqlite_database) as service:
        yield Shop(service, mlflow_uri)
    mlflow.set_tracking_uri(None)


def test_what_people_said_becomes_events(shop: Shop) -> None:
    trace = shop.trace()
    thumb = shop.feedback(trace, "user feedback", True, rationale="it helped")
    right = shop.expect(trace, "the right answer")
    words = shop.feedback(trace, "comment", "too long", by="bob")
    tone = shop.feedback(trace, "tone", -0.5)
    shop.feedback(trace, "judge", False, kind="LLM_JUDGE")
    shop.feedback(trace, "checker", True, kind="CODE")
    assert shop.run() == (5, 0, 0)
    sent = {e.event_id: e for e in shop.service.events()}
    assert {name: e.feedback for name, e in sent.items()} == {
        thumb: Outcome(metric="helpful", value=True),
        f"{thumb}-rationale": Critique(text="it helped"),
        right: Correction(completion="the right answer"),
        words: Critique(text="too long"),
        tone: Outcome(metric="tone", value=-0.5),
    }
    one = sent[right]
    assert (one.interaction_id, one.source, one.tags) == (
        trace,
        "archive",
        {"assessment": "expected_response"},
    )
    assert one.interaction is not None
    assert [(m.role, m.content) for m in one.interaction.prompt] == [("system", "s"), ("user", "q")]
    assert one.interaction.completion == "a"
    assert sent[thumb].subject_id == one.subject_id != sent[words].subject_id
    assert "ada" not in one.subject_id


def test_second_import_adds_what_was_said_since(shop: Shop) -> None:
    trace = shop.trace()
    shop.expect(trace, "right")
    assert shop.run() == (1, 0, 0)
    assert shop.run() == (0, 1, 0)
    shop.feedback(trace, "user feedback", False)
    assert shop.run() == (1, 1, 0)
    assert shop.service.num_records() == 2


def test_what_was_edited_in_place_is_another_event_once(shop: Shop) -> None:
    trace = shop.trace()
    right = shop.expect(trace, "right")
    thumb = shop.feedback(trace, "user feedback", True, rationale="it helped")
    assert shop.run() == (3, 0, 0)
    time.sleep(0.002)  # MLflow's clock, which tells that it was edited, has milliseconds
    edited = Expectation(name="expected_response", value="righter", source=ADA)
    mlflow.update_assessment(trace_id=trace, assessment_id=right, assessment=edited)
    assert [a.assessment_id for a in mlflow.get_trace(trace).info.assessments] == [right, thumb]
    assert shop.run() == (1, 2, 0)
    assert shop.run() == (0, 3, 0)
    sent = {e.event_id: e.feedback for e in shop.service.events()}
    (new,) = sent.keys() - {right, thumb, f"{thumb}-rationale"}
    assert new.startswith(f"{right}-")
    assert sent[new] == Correction(completion="righter")
    assert sent[right] == Correction(completion="right")


def test_an_mlflow_that_is_away_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match="tracking-uri"):
        import_mlflow("shop", away, shop.service.remote, RULES, shop.folder, advance=lambda _: None)
    shop.expect(shop.trace(), "right")

    def fail(*_: object, **__: object) -> None:
        raise MlflowException("connection reset")

    for name in ("search_traces", "get_trace"):
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, name, fail)
            with pytest.raises(UnavailableError, match="connection reset"):
                shop.run()
    assert shop.run() == (1, 0, 0)


def test_what_is_taken_back_is_not_imported(shop: Shop) -> None:
    trace = shop.trace()
    first = shop.feedback(trace, "user feedback", True)
    mlflow.override_feedback(trace_id=trace, assessment_id=first, value=False)
    gone = shop.feedback(trace, "comment", "oops")
    mlflow.delete_assessment(trace_id=trace, assessment_id=gone)
    # What overrides names no person unless told, so that it does not count as one.
    (said,) = mlflow.get_trace(trace).info.assessments[1:]
    human = said.source.source_type == "HUMAN"
    assert shop.run() == (1 if human else 0, 0, 0)
    assert first not in {e.event_id for e in shop.service.events()}


def test_what_cannot_be_said_is_named(shop: Shop) -> None:
    trace = shop.trace()
    facts = shop.expect(trace, ["a list", "of facts"])
    stars = shop.feedback(trace, "stars", 4)
    vibes = shop.feedback(trace, "vibes", True)
    assert shop.run() == (0, 0, 3)
    found = {row["assessment_id"]: row for row in shop.rejects()}
    assert {row["trace_id"] for row in found.values()} == {trace}
    assert "an expectation with a text" in found[facts]["error"]["expected"]
    assert "--scale" in found[stars]["error"]["mend"]
    assert "vibes" in json.dumps(found[vibes]["error"])
    assert shop.run(RULES._replace(scale=(1, 5), metrics={"vibes": "helpful"})) == (2, 0, 1)
    feedback = [e.feedback for e in shop.service.events()]
    assert Rating(value=4, scale=RatingScale(low=1, high=5)) in feedback


def test_pages_are_small_and_an_import_cut_off_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "PAGE_TRACES", 4)
    for number in range(11):
        shop.expect(shop.trace(outputs=f"answer {number}"), f"right {number}")
    seen: list[int] = []

    def cut_off(done: int) -> None:
        seen.append(done)
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_mlflow("shop", shop.uri, shop.service.remote, RULES, shop.folder, advance=cut_off)
    assert seen == [4, 8]
    read: list[str] = []
    ends = mlflow_store._ends

    def note(client: Any, trace_id: str) -> Any:
        read.append(trace_id)
        return ends(client, trace_id)

    monkeypatch.setattr(mlflow_store, "_ends", note)
    imported, already_there, rejected = shop.run()
    # The trace at the bookmark is looked at again: others may share its moment.
    assert (imported, rejected) == (11, 0)
    assert already_there >= 1
    assert len(read) == 3
    rights = [e.feedback.completion for e in shop.service.events()]  # type: ignore[union-attr]
    assert sorted(rights) == sorted(f"right {number}" for number in range(11))


def test_unknown_experiment_and_service_away(shop: Shop) -> None:
    nobody = Remote("http://127.0.0.1:9", "k")
    with pytest.raises(NotFoundError, match="nothing"):
        import_mlflow("nothing", shop.uri, nobody, RULES, shop.folder, advance=lambda _: None)
    shop.expect(shop.trace(), "right")
    with pytest.raises(UnavailableError):
        import_mlflow("shop", shop.uri, nobody, RULES, shop.folder, advance=lambda _: None)
    assert shop.run() == (1, 0, 0)


def test_command(shop: Shop) -> None:
    trace = shop.trace()
    shop.feedback(trace, "thumb", True)
    shop.feedback(trace, "stars", 5)
    words = ["import", "mlflow", "--experiment", "shop", "--tracking-uri", shop.uri]
    words += ["--metric", "thumb=helpful", "--source", "archive", "--key", shop.service.key]
    words += ["--url", shop.service.remote.url, "--home", str(shop.service.settings.home)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "1 imported, 0 already there, 1 rejected" in done.stdout
    done = CliRunner().invoke(app, [*words, "--scale", "1:5"])
    assert done.exit_code == 0, done.output
    assert "1 imported, 1 already there, 0 rejected" in done.stdout


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("hello", [("user", "hello")]),
        ({"question": "q", "user": "u-1"}, [("user", "q")]),
        ({"whatever": "q"}, [("user", "q")]),
        ({"a": "x", "b": "y"}, [("user", '{"a": "x", "b": "y"}')]),
        (None, [("user", "")]),
        ([{"role": "user", "content": "q"}], [("user", "q")]),
        ({"messages": [{"role": "developer", "content": "d"}]}, [("system", "d")]),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
            [("assistant", '{"tool_calls": [{"id": "1"}]}')],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]},
            [("user", "q")],
        ),
    ],
)
def test_inputs_become_a_prompt(inputs: Any, said: list[tuple[str, str]]) -> None:
    assert [(m["role"], m["content"]) for m in prompt_of(inputs)] == said


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ("a", "a"),
        (ANSWER, "a"),
        ({"choices": [{"text": "a"}]}, '{"text": "a"}'),
        ({"messages": [{"role": "user", "content": "q"}, {"content": "a"}]}, "a"),
        ({"response": "a", "took_s": 3}, "a"),
        ({"x": 1}, '{"x": 1}'),
        (None, ""),
    ],
)
def test_outputs_become_a_completion(outputs: Any, text: str) -> None:
    assert completion_of(outputs) == text


@pytest.mark.parametrize(("value", "expected"), [("Yes", True), (" no ", False), ("TRUE", True)])
def test_words_for_yes_and_no(value: str, expected: bool) -> None:
    said = SimpleNamespace(
        assessment_id="a-1",
        name="Is Helpful?",
        rationale=" ",
        create_time_ms=1,
        last_update_time_ms=1,
        expectation=None,
        feedback=SimpleNamespace(value=value, error=None),
    )
    (made,) = said_by(said, TraceRules("s", "default"))  # type: ignore[arg-type]
    assert made.feedback == {"type": "outcome", "metric": "is_helpful", "value": expected}


def test_options_are_read() -> None:
    assert read_metrics(["a=b=c", "x=y"]) == {"a=b": "c", "x": "y"}
    assert (read_scale(None), read_scale("1:5")) == (None, (1.0, 5.0))
    for bad in ("a", "=b", "a="):
        with pytest.raises(InvalidInputError):
            read_metrics([bad])
    for bad in ("1", "5:1", "a:b", "nan:1"):
        with pytest.raises(InvalidInputError):
            read_scale(bad)


ADA = AssessmentSource(source_type="HUMAN", source_id="ada")


def test_pages_go_on_past_a_trace_that_is_gone_and_one_that_was_edited(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "PAGE_TRACES", 2)
    traces = [shop.trace() for _ in range(7)]
    thumbs = [shop.feedback(trace, "user feedback", True) for trace in traces]
    pages, num_pages = mlflow_store._pages, 0

    def edited_between_pages(*args: Any, **options: Any) -> Iterator[list[Any]]:
        nonlocal num_pages
        for page in pages(*args, **options):
            num_pages += 1
            if num_pages == 2:
                # The third, listed but not read yet, is gone; the first and the sixth change.
                mlflow.MlflowClient().delete_traces(experiment.experiment_id, trace_ids=[traces[2]])
                for trace, thumb in ((traces[0], thumbs[0]), (traces[5], thumbs[5])):
                    edited.append(
                        mlflow.override_feedback(
                            trace_id=trace, assessment_id=thumb, value=False, source=ADA
                        ).assessment_id
                    )
            yield page

    edited: list[str] = []
    monkeypatch.setattr(mlflow_store, "_pages", edited_between_pages)
    experiment = mlflow.get_experiment_by_name("shop")
    assert experiment is not None
    imported, _, rejected = shop.run()
    assert num_pages >= 3
    assert rejected == 1
    assert [row["trace_id"] for row in shop.rejects()] == [traces[2]]
    # The next run looks at all again: what changed behind the first comes then, and nothing twice.
    imported += shop.run()[0]
    ids = [e.event_id for e in shop.service.events()]
    assert len(ids) == len(set(ids)) == imported
    kept = {*thumbs, *edited} - {thumbs[2], thumbs[5]}
    assert set(ids) == kept
