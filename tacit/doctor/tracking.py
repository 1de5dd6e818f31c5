"""Is MLflow where the settings say?"""

from collections.abc import Iterator
from http import HTTPStatus

import httpx

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn

AREA = "mlflow"
_TIMEOUT_S = 5.0


def check_tracking(settings: Settings) -> Iterator[Finding]:
    """An MLflow server that answers; one that Tacit starts is a matter of its port."""
    uri = settings.tracking.uri
    if uri is None:
        yield ok(AREA, f"Tacit starts it on port {settings.tracking.port}")
    elif not uri.startswith(("http://", "https://")):
        yield warn(
            AREA,
            f"{uri} is no server and is not asked",
            "Only a server at http:// or https:// can be shared by all processes.",
        )
    else:
        yield _server(uri)


def _server(uri: str) -> Finding:
    mend = "Start it, check tracking.uri, or leave it out: Tacit then starts one."
    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return fail(AREA, f"{uri} does not answer: {type(error).__name__} {error}", mend)
    if answer.status_code != HTTPStatus.OK:
        return fail(AREA, f"{uri}/health says {answer.status_code}", mend)
    return _interface(uri)


def _interface(uri: str) -> Finding:
    """Health is for anyone; the API is not: MLflow turns away names and users it does not know."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        return fail(
            AREA,
            f"{uri} is healthy and refuses its API: {' '.join(str(error).split())[:200]}",
            "Name the host in MLFLOW_SERVER_ALLOWED_HOSTS of the server; where it asks for a user, "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        )
    return ok(AREA, f"{uri} answers")
