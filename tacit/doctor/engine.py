"""Does the vLLM server answer, where one serves?"""

import os
from collections.abc import Iterator
from http import HTTPStatus

import httpx

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok

AREA = "engine"
_TIMEOUT_S = 5.0


def check_engine(settings: Settings) -> Iterator[Finding]:
    """The engine of ``deploy.engine``."""
    deploy = settings.deploy
    if deploy.engine == "transformers":
        yield ok(AREA, f"transformers, embedded, on {deploy.device}")
        return
    url = deploy.vllm_url.rstrip("/")
    key = os.environ.get("TACIT_VLLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield fail(
            AREA,
            f"no vLLM at {url}: {type(error).__name__} {error}",
            "Start it as docs/how-to/serve-with-vllm.md says, or check deploy.vllm_url.",
        )
        return
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        yield fail(AREA, f"vLLM at {url} wants another key", "Set TACIT_VLLM_API_KEY.")
    elif answer.status_code != HTTPStatus.OK:
        yield fail(AREA, f"{url}/v1/models says {answer.status_code}", "Is that a vLLM server?")
    else:
        yield ok(AREA, f"vLLM answers at {url}")
