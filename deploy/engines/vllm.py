"""The engine for large policies: a vLLM server that runs beside Tacit and is spoken to over HTTP.

vLLM holds the base checkpoint, with ``tacit-DIGEST12`` as its served model name. A release that is
an adapter is loaded into it under a name that is never used again, since an adapter that is loaded
anew under its old name may be answered from what was cached. Then new requests go to that name, and
the adapter before is unloaded when its last request is done. During a rollout two adapters are
loaded, and each request names the one it goes to. docs/how-to/serve-with-vllm.md shows
how to start the server.
"""

import logging
import os
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from deploy.engines.base import GenerationRequest, NotLoadedError, QueueFullError, Ticket, num_users
from deploy.engines.bind import bind
from deploy.engines.row import Row
from deploy.engines.vllm_wire import (
    MEND,
    choices_of,
    push_choice,
    request_body,
    require_success,
    unavailable,
)
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Message, SamplingParameters, short
from tacit.errors import ConfigError, NotFoundError, UnavailableError
from tacit.policies import Policy, load_tokenizer

logger = logging.getLogger(__name__)

KEY_VARIABLE = "TACIT_VLLM_API_KEY"
_TIMEOUT = httpx.Timeout(300.0, connect=5.0)
_WARM_UP = GenerationRequest(
    prompt=(Message(role="user", content="warm up"),), sampling=SamplingParameters(max_tokens=1)
)


@dataclass(eq=False)
class _Served:
    """A policy under the name that vLLM knows it by."""

    policy: Policy
    """With its tokenizer alone."""
    name: str
    is_adapter: bool
    context: int | None
    num_running: int = 0


class VllmEngine:
    """An :class:`deploy.engines.base.Engine` over the HTTP API of one vLLM server."""

    def __init__(
        self, store: CheckpointStore, *, url: str, max_batch_size: int, max_queue: int
    ) -> None:
        self._store = store
        self._max_unfinished = max_batch_size + max_queue
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT)
        self._threads = ThreadPoolExecutor(max_batch_size, thread_name_prefix="vllm")
        self._serving: _Served | None = None
        self._beside: _Served | None = None
        self._num_unfinished = 0
        self._lock = threading.Lock()
        self._closed = False

    @property
    def weights(self) -> Digest | None:
        """Checkpoint that new requests are bound to."""
        serving = self._serving
        return None if serving is None else serving.policy.digest

    @property
    def beside(self) -> Digest | None:
        """Checkpoint that only requests which name it are bound to."""
        beside = self._beside
        return None if beside is None else beside.policy.digest

    def start(self) -> None:
        """Nothing to start: the server runs already."""

    def load(self, weights: Digest) -> None:
        """Load an adapter into vLLM, try it, move new requests to it.

        Raises NotFoundError, ConfigError if vLLM serves another base, UnavailableError.
        """
        if weights != self.beside:
            self.load_beside(weights)
        with self._lock:
            before = self._serving
            self._serving, self._beside = self._beside, None
        logger.info("new requests are answered by %s", weights)
        self._unload_if_done(before)

    def load_beside(self, weights: Digest | None) -> None:
        """Load a second adapter and try it, or drop it. Raises as ``load`` does."""
        with self._lock:
            before, self._beside = self._beside, None
        self._unload_if_done(before)
        if weights is not None:
            self._beside = self._tried(weights)

    def submit(
        self, requests: Sequence[GenerationRequest], *, weights: Digest | None = None
    ) -> list[Ticket]:
        """Queue requests, all bound to the policy that serves now, or to that with ``weights``."""
        with self._lock:
            served = self._served(weights)
            num_new = num_users(requests)
            if self._num_unfinished + num_new > self._max_unfinished:
                raise QueueFullError(
                    f"at most {self._max_unfinished} unfinished requests",
                    got=f"{self._num_unfinished} and {num_new} more",
                    mend="Try again in a moment; deploy.max_queue sets the limit.",
                )
            served.num_running += len(requests)
            self._num_unfinished += num_new
        try:
            rows = [bind(request, served.policy, context=served.context) for request in requests]
        except BaseException:
            self._done(served, requests)
            raise
        for row in rows:
            self._threads.submit(self._answer, row, served)
        return [row.ticket for row in rows]

    def close(self) -> None:
        """Stop once the requests that run are answered; what still waits fails."""
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=True)
        self._http.close()

    def _served(self, weights: Digest | None) -> _Served:
        if self._serving is None or self._closed:
            got = "one that is shutting down" if self._closed else "none loaded yet"
            raise UnavailableError("a policy to answer with", got=got)
        for served in (self._serving, self._beside):
            if served is not None and weights in (None, served.policy.digest):
                return served
        raise NotLoadedError("a checkpoint that is loaded", got=str(weights))

    def _tried(self, weights: Digest) -> _Served:
        served = self._load(weights)
        row = bind(_WARM_UP, served.policy, context=served.context)
        self._generate(row, served)
        row.ticket.future.result(timeout=0)
        return served

    def _answer(self, row: Row, served: _Served) -> None:
        try:
            if self._closed:
                row.fail(UnavailableError("a server that runs", got="one that is shutting down"))
            elif row.ticket.future.set_running_or_notify_cancel():
                self._generate(row, served)
        except Exception as error:  # whatever goes wrong, the request must hear of it
            row.fail(error)
        finally:
            self._done(served, [row.request])

    def _done(self, served: _Served, requests: Sequence[GenerationRequest]) -> None:
        with self._lock:
            served.num_running -= len(requests)
            self._num_unfinished -= num_users(requests)
        if served not in (self._serving, self._beside):
            self._unload_if_done(served)

    def _generate(self, row: Row, served: _Served) -> None:
        body = request_body(row, served.name)
        try:
            with self._http.stream("POST", "/v1/completions", json=body) as response:
                if response.is_error:
                    response.read()
                require_success(response)
                for choice in choices_of(response):
                    push_choice(row, choice)
                    if row.done:
                        return  # which closes the stream, and vLLM stops
        except httpx.HTTPError as error:
            raise unavailable(error) from error
        row.end()

    def _load(self, weights: Digest) -> _Served:
        manifest = self._store.manifest(weights)
        base = weights if manifest.base is None else manifest.base
        base_name = f"tacit-{short(base)}"
        models = {model["id"]: model for model in self._call("GET", "/v1/models").json()["data"]}
        if base_name not in models:
            raise ConfigError(
                f"a vLLM server of {base_name} at {self._http.base_url}",
                got=", ".join(sorted(models)) or "one without models",
                mend=f"Start it with `vllm serve {self._store.path(base).resolve()} "
                f"--served-model-name {base_name} --enable-lora`. {MEND}",
            )
        tokenizer = load_tokenizer(self._store, base)
        policy = Policy(model=None, tokenizer=tokenizer, digest=weights)
        context = models[base_name].get("max_model_len")
        if manifest.base is None:
            return _Served(policy, base_name, False, context)
        name = f"tacit-{short(weights)}-{uuid.uuid4().hex[:8]}"
        path = str(self._store.path(weights).resolve())
        self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        return _Served(policy, name, True, context)

    def _unload_if_done(self, served: _Served | None) -> None:
        with self._lock:
            if served is None or served.num_running or not served.is_adapter:
                return
            served.is_adapter = False  # so that it is unloaded once
        try:
            self._call("POST", "/v1/unload_lora_adapter", {"lora_name": served.name})
        except (UnavailableError, NotFoundError, ConfigError) as error:
            logger.warning("the adapter %s stays in vLLM: %s", served.name, error)

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise unavailable(error) from error
        require_success(response)
        return response
