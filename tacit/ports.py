"""Ports that nobody uses, for services that are to listen there later."""

import random
import socket
from collections import deque
from functools import cache
from pathlib import Path

_SYSTEM = random.SystemRandom()
"""Not seeded along with what is measured."""

_given: deque[int] = deque(maxlen=1_000)
"""Whoever is to listen there may not do so yet."""


def free_port(*, number: int = 1) -> int:
    """A TCP port of 127.0.0.1 that nobody uses now, the first of ``number`` in a row.

    Not one that this process was given before, but for those long ago.

    Nor one of those that the system gives to outgoing connections: it would do so before whoever is
    to listen there comes, the longer that takes the likelier. Nor one that Ray gives its workers,
    10002 to 19999.
    """
    while True:
        port = _SYSTEM.randrange(20_000, _outgoing_ports_begin() - number)
        ports = range(port, port + number)
        if all(one not in _given and _is_free(one) for one in ports):
            _given.extend(ports)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@cache
def _outgoing_ports_begin() -> int:
    """32768 unless the system says otherwise; where they leave no room any port has to do."""
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    begin = int(told.read_text().split()[0]) if told.exists() else 32_768
    return begin if begin > 21_000 else 65_000
