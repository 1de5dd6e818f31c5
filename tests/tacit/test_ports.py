"""tacit.ports: what is kept for a service is still free when it comes."""

import socket
from pathlib import Path

import pytest

from tacit.ports import free_port


def test_no_outgoing_connection_takes_a_port_that_waits_for_its_service() -> None:
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if told.exists() and int(told.read_text().split()[0]) <= 21_000:
        pytest.skip("outgoing connections have nearly all ports here")
    kept = {free_port(number=2) + offset for _ in range(50) for offset in (0, 1)}
    with socket.create_server(("127.0.0.1", 0), backlog=600) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(500)]
        taken = {client.getsockname()[1] for client in clients}
        for client in clients:
            client.close()
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        taken.add(given.getsockname()[1])
    assert not kept & taken
    assert max(kept) < min(taken)


def test_services_of_one_process_get_a_port_each() -> None:
    given = [free_port() for _ in range(900)]
    assert len(set(given)) == len(given)
