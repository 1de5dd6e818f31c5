"""The control API of a running service, as the command line sees it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tacit.config import load_settings
from tacit.errors import NotAuthenticatedError, TacitError, UnavailableError


class RemoteError(TacitError, RuntimeError):
    """The service refused; carries what it said."""


@dataclass(frozen=True)
class Remote:
    """Base URL and key of a service."""

    url: str
    key: str

    @classmethod
    def connect(
        cls, *, url: str | None, key: str | None, home: Path | None, key_name: str = "admin"
    ) -> "Remote":
        """From what was passed, else from the settings and keys of a local service.

        Raises NotAuthenticatedError if there is no key.
        """
        settings = load_settings(home=home)
        url = url or f"http://{settings.collector.host}:{settings.collector.port}"
        path = settings.keys_path / f"{key_name}.key"
        if key is None and path.exists():
            key = path.read_text().strip()
        if not key:
            raise NotAuthenticatedError(
                "an API key",
                got="none",
                mend=f"Set TACIT_API_KEY, or run where {path} was made by `tacit up`.",
            )
        return cls(url.rstrip("/"), key)

    def get(self, path: str) -> Any:
        """JSON of a GET. Raises RemoteError, UnavailableError."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a POST. Raises RemoteError, UnavailableError."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            response = httpx.request(
                method, self.url + path, json=body, headers=headers, timeout=60
            )
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"a service at {self.url}", got=str(error), mend="`tacit up` starts one."
            ) from error
        if response.is_error:
            raise _remote_error(response)
        return response.json()


def _remote_error(response: httpx.Response) -> RemoteError:
    try:
        error = response.json()["error"]
        return RemoteError(error["expected"], got=error.get("got", ""), mend=error.get("mend", ""))
    except (ValueError, KeyError, TypeError):
        return RemoteError("a good answer", got=f"{response.status_code}: {response.text[:200]}")
