"""The part of vLLM's HTTP API that the engine speaks, over a tiny policy in this process."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deploy.engines.base import GenerationRequest, TopToken
from deploy.engines.batch import RunningBatch
from deploy.engines.row import Row
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, SamplingParameters, short
from tacit.policies import Policy, load_policy


@dataclass
class FakeVllm:
    """A server of one base; adapters are loaded and unloaded by name."""

    store: CheckpointStore
    base: Digest
    models: dict[str, Policy] = field(default_factory=dict)
    names_ever: list[str] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Each answer waits for it after its first token."""
    breaks: bool = False
    """Whether answers end in an error after the first token."""

    def __post_init__(self) -> None:
        self.models[f"tacit-{short(self.base)}"] = load_policy(self.store, self.base)
        self.gate.set()

    def app(self) -> FastAPI:
        """The routes."""
        app = FastAPI()
        app.get("/v1/models")(self.list_models)
        app.post("/v1/load_lora_adapter")(self.load)
        app.post("/v1/unload_lora_adapter")(self.unload)
        app.post("/v1/completions")(self.complete)
        return app

    def list_models(self) -> dict[str, Any]:
        return {"data": [{"id": name, "max_model_len": 256} for name in self.models]}

    async def load(self, request: Request) -> Response:
        body = await request.json()
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.models or not (path / "adapter_config.json").exists():
            return JSONResponse({"error": {"message": f"cannot load {name}"}}, 400)
        self.models[name] = load_policy(self.store, f"sha256:{path.name}")
        self.names_ever.append(name)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        del self.models[name]
        self.unloaded.append(name)
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        policy = self.models.get(body["model"])
        if policy is None:
            return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
        assert body["stream"]
        assert body["return_tokens_as_token_ids"]
        return StreamingResponse(self._events(policy, body), media_type="text/event-stream")

    def _events(self, policy: Policy, body: dict[str, Any]) -> Iterator[str]:
        for number, (token_id, logprob, top) in enumerate(_tokens(policy, body)):
            if number:
                self.gate.wait(timeout=60)
                if self.breaks:
                    yield 'data: {"error": {"message": "out of blocks"}}\n\n'
                    return
            logprobs = {
                "tokens": [f"token_id:{token_id}"],
                "token_logprobs": [logprob],
                "top_logprobs": [{f"token_id:{t.token_id}": t.logprob for t in top}],
            }
            choice = {"index": 0, "text": "?", "logprobs": logprobs, "finish_reason": None}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"


def _tokens(policy: Policy, body: dict[str, Any]) -> list[tuple[int, float, tuple[TopToken, ...]]]:
    sampling = SamplingParameters(**{k: body[k] for k in ("temperature", "top_p", "seed")})
    asked = GenerationRequest("", sampling, top_logprobs=body["logprobs"])
    row = Row(asked, policy, prompt_ids=body["prompt"], max_tokens=body["max_tokens"])
    batch = RunningBatch(policy, max_size=1)
    batch.admit([row])
    while batch.rows:
        batch.step()
    got = row.ticket.future.result(timeout=0)
    tops = got.tops or ((),) * len(got.token_ids)
    # vLLM puts the drawn token among the likeliest.
    return [
        (token_id, logprob, top or (TopToken(token_id, logprob),))
        for token_id, logprob, top in zip(got.token_ids, got.logprobs, tops, strict=True)
    ]
