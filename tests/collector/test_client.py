"""The SDK against a real server: nothing lost, nothing doubled, nothing retried for ever."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from openai.types import Completion

from collector.client import TacitClient
from tacit.contracts import Correction, Preference, Rating
from tacit.errors import InvalidInputError, UnavailableError
from tacit.ports import free_port
from tests.builders import MOMENT, event, interaction
from tests.collector.conftest import MakeRoom, Room
from tests.collector.products import Flaky, app_of, chat, events_of, key_of, serving


def test_each_kind_of_feedback_arrives_as_it_was_said(make: MakeRoom) -> None:
    room, port = make(), free_port()
    with serving(app_of(room), port):
        url = f"http://127.0.0.1:{port}"
        with TacitClient(url, api_key=key_of(room), source="helpdesk", subject_id="u-1") as tacit:
            ids = [
                tacit.correct(chat("billing"), "shipping", tags={"screen": "a"}),
                tacit.outcome("chatcmpl-2", True, episode_id="p-1"),
                tacit.rate(chat("x", answer_id="c-3"), 4, low=1, high=5, subject_id="u-2"),
                tacit.prefer(chat("good", answer_id="c-4"), "bad"),
                tacit.prefer("good", "bad", response="c-5"),
                tacit.critique("c-6", "too long"),
                tacit.send(event("mine", interaction=interaction())),
            ]
    sent = events_of(room)
    assert [e.event_id for e in sent] == ids
    assert sent[0].feedback == Correction(completion="shipping")
    assert (sent[0].interaction_id, sent[0].tags) == ("chatcmpl-1", {"screen": "a"})
    assert sent[1].episode_id == "p-1"
    assert isinstance(sent[2].feedback, Rating)
    assert (sent[2].feedback.normalized(), sent[2].subject_id) == (0.5, "u-2")
    assert sent[3].feedback == sent[4].feedback == Preference(chosen="good", rejected="bad")
    assert [e.interaction_id for e in sent[3:6]] == ["c-4", "c-5", "c-6"]


def test_server_away_at_first_gets_everything_once_it_is_up(make: MakeRoom) -> None:
    room, port = make(max_events_per_subject=999), free_port()
    with TacitClient(
        f"http://127.0.0.1:{port}", api_key=key_of(room), source="helpdesk", max_batch_events=7
    ) as tacit:
        ids = [tacit.outcome(f"c-{i}", True, subject_id="u-1") for i in range(50)]
        with pytest.raises(UnavailableError, match="50 still waiting; last error: Connect"):
            tacit.flush(timeout_s=0.3)
        with serving(app_of(room), port):
            tacit.flush()
            assert [e.event_id for e in events_of(room)] == ids
            assert tacit.rejected == []


def client_of(room: Room, transport: httpx.BaseTransport, **options: Any) -> TacitClient:
    values = {"api_key": key_of(room), "source": "helpdesk", "subject_id": "u-1", **options}
    return TacitClient("http://tacit", transport=transport, **values)


def test_call_repeated_under_its_id_counts_once_only_with_its_moment(make: MakeRoom) -> None:
    room = make()
    tacit = client_of(room, Flaky(app_of(room), []))
    for name, moments in (("mine", [MOMENT, MOMENT]), ("other", [MOMENT, None])):
        for moment in moments:
            about = {"occurred_at": moment} if moment else {}
            tacit.outcome("c-1", True, event_id=name, **about)
    with pytest.raises(InvalidInputError, match="other"):
        tacit.flush()
    tacit.close()
    assert [(r.event_id, r.status) for r in tacit.rejected] == [("other", "conflict")]
    assert [e.event_id for e in events_of(room)] == ["mine", "other"]


def test_lost_answers_and_503_neither_lose_nor_double(make: MakeRoom) -> None:
    room = make()
    flaky = Flaky(app_of(room), ["lose", "unavailable", "proxy", "lose"])
    with client_of(room, flaky) as tacit:
        sent = [tacit.outcome("c-1", True)]
    assert flaky.num_requests == 5
    assert [e.event_id for e in events_of(room)] == sent


def test_rejected_events_surface_and_the_others_go_through(make: MakeRoom) -> None:
    room = make()
    flaky = Flaky(app_of(room), [])
    tacit = client_of(room, flaky)
    bad = tacit.outcome("c-1", True, metric="vibes")
    good = tacit.outcome("c-2", True)
    with pytest.raises(InvalidInputError, match="vibes"):
        tacit.flush()
    tacit.flush()  # told once
    assert [(r.event_id, r.status) for r in tacit.rejected] == [(bad, "rejected")]
    assert tacit.rejected[0].error["mend"]
    assert [e.event_id for e in events_of(room)] == [good]
    tacit.close()


def test_bad_key_is_not_retried_for_ever(make: MakeRoom) -> None:
    room = make()
    flaky = Flaky(app_of(room), [])
    tacit = client_of(room, flaky, api_key="tacit.a.b")
    tacit.outcome("c-1", True)
    with pytest.raises(InvalidInputError, match="401"):
        tacit.close()
    assert flaky.num_requests == 1


@pytest.mark.parametrize("key", ["", " \n"])
def test_missing_key_is_told_by_the_service(make: MakeRoom, key: str) -> None:
    room = make()
    with serving(app_of(room), free_port()) as url:
        tacit = TacitClient(url, api_key=key, source="helpdesk", subject_id="u-1")
        tacit.outcome("c-1", True)
        with pytest.raises(InvalidInputError, match="401"):
            tacit.close()


def test_batch_too_large_for_the_server_is_split(make: MakeRoom) -> None:
    room = make(max_events_per_subject=99)
    collector = room.settings.collector.model_copy(update={"max_events_per_request": 3})
    room.ingestor.settings = room.settings.model_copy(update={"collector": collector})
    with client_of(room, Flaky(app_of(room), [])) as tacit:
        sent = [tacit.outcome(f"c-{i}", True) for i in range(20)]
    assert [e.event_id for e in events_of(room)] == sent


def test_full_queue_blocks_and_then_says_so(make: MakeRoom) -> None:
    room = make()
    down = httpx.MockTransport(lambda request: httpx.Response(503))
    tacit = client_of(room, down, max_queue=3, max_batch_events=1, queue_timeout_s=0.2)
    events = [event(f"e-{i}") for i in range(9)]
    with pytest.raises(UnavailableError, match="queue of 3"):
        tacit.send_many(events)
    with pytest.raises(UnavailableError, match="HTTP 503"):
        tacit.close(timeout_s=0.1)
    with pytest.raises(UnavailableError, match="closed"):
        tacit.outcome("c-1", True)


def test_many_threads_share_a_client(make: MakeRoom) -> None:
    room = make(max_events_per_subject=9_999)
    with client_of(room, Flaky(app_of(room), [])) as tacit:
        threads = [
            threading.Thread(
                target=lambda n=n: [tacit.outcome(f"c-{n}-{i}", True) for i in range(40)]
            )
            for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sent = [e.event_id for e in events_of(room)]
    assert len(sent) == len(set(sent)) == 240


def test_what_is_queued_is_sent_at_exit(make: MakeRoom) -> None:
    room, port = make(), free_port()
    code = (
        "import sys\n"
        "from collector.client import TacitClient\n"
        "c = TacitClient(sys.argv[1], source='helpdesk', subject_id='u-1')\n"
        "for i in range(30): c.outcome(f'c-{i}', True)\n"
    )
    with serving(app_of(room), port):
        done = subprocess.run(
            [sys.executable, "-c", code, f"http://127.0.0.1:{port}"],
            env={"TACIT_API_KEY": key_of(room), "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(events_of(room)) == 30


BAD_CALLS = [
    (lambda c: c.correct(None, "x"), "interaction_id"),
    (lambda c: c.correct(SimpleNamespace(id=7), "x"), "openai response"),
    (lambda c: c.correct("bad id!", "x"), "interaction_id"),
    (lambda c: c.correct("c-1", None), "completion"),
    (lambda c: c.correct("c-1", "x", subject_id=" "), "subject_id"),
    (lambda c: c.outcome("c-1", 7), "value"),
    (lambda c: c.outcome("c-1", float("nan")), "value"),
    (lambda c: c.rate("c-1", 7), "1"),
    (lambda c: c.rate("c-1", 1, low=2, high=1), "low"),
    (lambda c: c.prefer("a", "a", response="c-1"), "differ"),
    (lambda c: c.prefer("a", "b"), "interaction_id"),
    (lambda c: c.prefer(SimpleNamespace(id="c-1"), "b"), "text"),
]


@pytest.mark.parametrize(("call", "named"), BAD_CALLS)
def test_bad_call_is_refused_where_it_is_made(call: Any, named: str) -> None:
    down = httpx.MockTransport(lambda request: httpx.Response(503))
    tacit = TacitClient("http://tacit", source="helpdesk", subject_id="u", transport=down)
    with pytest.raises(InvalidInputError, match=named):
        call(tacit)
    tacit.close()


def test_completion_object_has_its_text_too() -> None:
    made = Completion.model_validate(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "text": "good"}],
        }
    )
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(202, json={"results": [{"status": "queued"}]})

    with TacitClient(
        "http://t", source="s", subject_id="u", transport=httpx.MockTransport(answer)
    ) as tacit:
        tacit.prefer(made, "bad")
    assert b'"chosen":"good"' in bodies[0]
    assert b'"interaction_id":"cmpl-1"' in bodies[0]
