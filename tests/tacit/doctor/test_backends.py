"""Database, stream, MLflow and vLLM: away, foreign, refusing, without their extras."""

from pathlib import Path

import pytest

from tacit.database import Database
from tacit.doctor.database import check_database
from tacit.doctor.engine import check_engine
from tacit.doctor.findings import Status
from tacit.doctor.gate import check_gate
from tacit.doctor.stream import check_stream
from tacit.doctor.tracking import check_tracking
from tacit.ports import free_port
from tests.tacit.doctor.patients import findings, only, settings_in, write_suite


def test_database_that_is_away_foreign_or_old(tmp_path: Path) -> None:
    away = settings_in(tmp_path, f"database_url=postgresql://u:hidden@127.0.0.1:{free_port()}/x")
    finding = only(findings(check_database, away), Status.FAIL)
    assert "TACIT_DATABASE_URL" in finding.mend
    assert "hidden" not in finding.found

    here = settings_in(tmp_path)
    assert "made at the start" in findings(check_database, here)[0].found
    assert not (tmp_path / "tacit.db").exists()
    database = Database(here.resolved_database_url)
    database.migrate()
    assert [f.status for f in findings(check_database, here)] == [Status.OK]
    for version, status in (("0001", Status.WARN), ("9999", Status.FAIL)):
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        assert version in only(findings(check_database, here), status).found
    database.dispose()


def test_kafka_that_does_not_answer(tmp_path: Path) -> None:
    away = settings_in(
        tmp_path,
        "collector.stream=kafka",
        f"collector.kafka.bootstrap_servers=127.0.0.1:{free_port()}",
        "collector.kafka.bootstrap_timeout_s=0.3",
    )
    assert "bootstrap_servers" in only(findings(check_stream, away), Status.FAIL).mend


def test_topics_that_are_there_and_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Admin:
        def describe_topics(self) -> list[dict[str, object]]:
            return [{"name": "tacit.feedback", "partitions": [{}, {}, {}]}]

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(
        "collector.streams.kafka_connection.KafkaConnection.admin", lambda _: Admin()
    )
    found = findings(check_stream, settings_in(tmp_path, "collector.stream=kafka"))
    assert "tacit.feedback has 3 partitions" in found[1].found
    assert "tacit.interactions" in only(found, Status.WARN).found


def test_extras_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("database", "stream", "gate"):
        monkeypatch.setattr(f"tacit.doctor.{module}.find_spec", lambda _: None)
    settings = settings_in(
        tmp_path, "collector.stream=kafka", "database_url=postgresql://h/x", "model=a/b"
    )
    write_suite(settings.suites_path, items=300)
    task = "name: t\nkind: capability\ntype: lm_eval\ntasks: [arc_easy]\n"
    (settings.suites_path / "t.yaml").write_text(task)
    mends = [only(findings(c, settings), Status.FAIL).mend for c in (check_database, check_stream)]
    assert mends == ["pip install 'tacit[postgres]'", "pip install 'tacit[kafka]'"]
    assert "lm-eval" in only(findings(check_gate, settings), Status.FAIL).mend


def test_mlflow_that_refuses_its_api(tmp_path: Path, guarded: int) -> None:
    refuses = settings_in(tmp_path, f"tracking.uri=http://127.0.0.1:{guarded}")
    finding = only(findings(check_tracking, refuses), Status.FAIL)
    assert "Invalid Host header" in finding.found
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" in finding.mend


def test_mlflow_that_does_not_answer(tmp_path: Path, healthy: int) -> None:
    away = settings_in(tmp_path, f"tracking.uri=http://127.0.0.1:{free_port()}")
    assert "tracking.uri" in only(findings(check_tracking, away), Status.FAIL).mend
    there = settings_in(tmp_path, f"tracking.uri=http://127.0.0.1:{healthy}")
    assert [f.status for f in findings(check_tracking, there)] == [Status.OK]


def test_vllm_that_is_away_or_wants_a_key(tmp_path: Path, refusing: int) -> None:
    away = settings_in(
        tmp_path, "deploy.engine=vllm", f"deploy.vllm_url=http://127.0.0.1:{free_port()}"
    )
    assert "deploy.vllm_url" in only(findings(check_engine, away), Status.FAIL).mend
    locked = settings_in(
        tmp_path, "deploy.engine=vllm", f"deploy.vllm_url=http://127.0.0.1:{refusing}"
    )
    assert "TACIT_VLLM_API_KEY" in only(findings(check_engine, locked), Status.FAIL).mend
