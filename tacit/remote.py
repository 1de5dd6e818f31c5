"""The control API of a running service, as the command line sees it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tacit.config import load_settings
from tacit.errors import NotAuthenticatedError, TacitError, UnavailableError


class RemoteError(TacitError, RuntimeError):
    """The service refused; carries what it said, and as ``status`` the HTTP status."""


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

    def get(self, path: str, **params: Any) -> Any:
        """JSON of a GET; ``params`` that are None are left out. Raises as ``post`` does."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._call("GET", path, params=given)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a POST. Raises RemoteError, UnavailableError."""
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **content: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            response = httpx.request(
                method, self.url + path, headers=headers, timeout=60, **content
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
        said = response.json()["error"]
        error = RemoteError(said["expected"], got=said.get("got", ""), mend=said.get("mend", ""))
    except (ValueError, KeyError, TypeError):
        error = RemoteError("a good answer", got=f"{response.status_code}: {response.text[:200]}")
    error.status = response.status_code
    return error
