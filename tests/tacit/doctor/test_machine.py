"""Home, ports, Ray and GPUs."""

import os
from pathlib import Path

import pytest

from tacit.doctor.compute import check_ray, check_torch
from tacit.doctor.findings import Status
from tacit.doctor.home import check_home
from tacit.doctor.ports import check_ports
from tacit.ports import free_port
from tests.tacit.doctor.patients import findings, only, settings_in


def test_home_that_cannot_be_written_or_is_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert (
        "is not a folder"
        in only(findings(check_home, settings_in(tmp_path / "file" / "home")), Status.FAIL).found
    )
    huge = settings_in(tmp_path / "home", f"collector.min_free_bytes={1 << 60}")
    assert "Make room" in only(findings(check_home, huge), Status.FAIL).mend
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:{port}", "nothing listens"), ("somewhere", "RAY_ADDRESS is somewhere")],
)
def test_ray_that_is_away(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=free_port()))
    assert message in only(findings(check_ray, settings_in(tmp_path)), Status.FAIL).found


@pytest.mark.parametrize(
    ("nodes", "status"),
    [
        (set(), Status.WARN),
        ({"127.0.0.1:1"}, Status.WARN),
        ({"10.0.0.1:{port}"}, Status.OK),
        ({"127.0.0.1:1", "127.0.0.1:{port}"}, Status.OK),
    ],
)
def test_a_driver_needs_a_node_of_that_cluster_here(
    nodes: set[str], status: Status, tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {node.format(port=taken) for node in nodes}
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: found)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken}")
    _, joined = findings(check_ray, settings_in(tmp_path))
    assert joined.status is status
    if status is Status.WARN:
        assert joined.mend == f"ray start --num-cpus=0 --address=127.0.0.1:{taken}"


def test_more_workers_than_cpus(tmp_path: Path) -> None:
    many = settings_in(tmp_path, f"trainer.num_workers={(os.cpu_count() or 1) + 1}")
    assert "trainer.num_workers" in only(findings(check_ray, many), Status.FAIL).found


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    wants = settings_in(tmp_path, "deploy.device=cuda")
    assert "deploy.device" in only(findings(check_torch, wants), Status.FAIL).found


def test_ports_taken_by_others_by_tacit_and_twice(tmp_path: Path, taken: int, healthy: int) -> None:
    other = settings_in(tmp_path, f"collector.port={taken}")
    assert "set collector.port" in only(findings(check_ports, other), Status.FAIL).mend
    ours = settings_in(tmp_path, f"deploy.port={healthy}")
    assert {f.status for f in findings(check_ports, ours)} == {Status.OK}
    port = free_port()
    twice = settings_in(tmp_path, f"collector.port={port}", f"deploy.port={port}")
    assert [f.status for f in findings(check_ports, twice)].count(Status.FAIL) == 2
