"""One address before several servers, as a Kubernetes Service is: connections go round."""

import itertools
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_CONNECT_S = 2.0


class Balancer(socketserver.ThreadingTCPServer):
    """Hands each connection to the next port that takes it; ``taken`` counts them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.num_ports = len(ports)
        self.ports = itertools.cycle(ports)
        self.taken: Counter[int] = Counter()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self) -> socket.socket | None:
        """A connection to one of the servers; None if no one takes it."""
        for _ in range(self.num_ports):
            port = next(self.ports)
            with suppress(OSError):
                made = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_S)
                made.settimeout(None)
                self.taken[port] += 1
                return made
        return None


class _Handler(socketserver.BaseRequestHandler):
    server: Balancer
    request: socket.socket

    def handle(self) -> None:
        behind = self.server.connect()
        if behind is None:
            return
        with behind:
            back = threading.Thread(target=_pass_on, args=(behind, self.request), daemon=True)
            back.start()
            _pass_on(self.request, behind)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@contextmanager
def balanced(ports: Sequence[int]) -> Iterator[Balancer]:
    """A balancer before ``ports`` while the block runs."""
    with Balancer(ports) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()
