"""How MLflow is reached: its addresses, its client, and refusals said so that one knows what to set.

Authentication is MLflow's own: MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the
environment. Importing mlflow costs 2 s and the first use of a database 2 s more (measured), so both happen here, late.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SERVED = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Set unless the user has. The mirror tries again by itself; retries of urllib3 would also print a line each."""
_REFUSALS = (401, 403)


class MlflowRefusedError(Exception):
    """The server wants to know who asks, or does not allow it."""


def is_served(uri: str) -> bool:
    """True for a server, which places artifacts itself; false for a database."""
    return urlsplit(uri).scheme in SERVED


def pages_of(uri: str) -> str:
    """The address of its pages: the server's own, or where the command that opens those of a database serves them."""
    return uri.rstrip("/") if is_served(uri) else "http://127.0.0.1:5000"


def checked_address(uri: str) -> str:
    """The address of a server or a database. Raises ValueError for another, and for one that holds a password."""
    parts = urlsplit(uri)
    if parts.scheme.split("+")[0] not in SERVED + _DATABASES:
        raise ValueError(
            f"must be the address of an MLflow server or database, got {uri!r}. "
            "Write http://HOST:PORT or sqlite:////absolute/path/mlflow.db; MLflow 3 refuses plain folders"
        )
    if parts.password:
        raise ValueError(
            "must not hold a password, since sweep.json and the tracker repeat it. Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD for a server, a database's own environment (PGPASSWORD) or file for it"
        )
    return uri


def checked_artifacts(place: str) -> str:
    """Where artifacts go: an absolute path or a URI. Raises ValueError; S3 needs boto3."""
    if "://" not in place and not Path(place).is_absolute():
        raise ValueError(f"must be s3://BUCKET/PREFIX, another URI or an absolute path, got {place!r}")
    if place.startswith("s3://") and find_spec("boto3") is None:
        raise ValueError(f"{place} needs boto3. Install it with: pip install 'hrm-orchestrator[s3]'")
    return place


def absolute_address(uri: str | None, storage: Path) -> str:
    """None is the storage's own database; a relative sqlite path is read from the working directory."""
    uri = uri or f"sqlite:///{storage.absolute() / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


def connect(uri: str) -> MlflowClient:
    """A client that leaves MLflow's global state alone. Makes a database's folder."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith("sqlite:////"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def refusals_in_words(uri: str) -> Generator[None]:
    """A 401 or 403 meanwhile becomes a MlflowRefusedError that says what to set."""
    try:
        yield
    except Exception as error:
        status = _status_of(error)
        if status not in _REFUSALS:
            raise
        given = [name for name in os.environ if name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")]
        who = f"as {' and '.join(given)} say" if given else "without a name"
        raise MlflowRefusedError(
            f"{uri} refuses what is asked of it {who} (HTTP {status}). Set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to those of a user who may write there; "
            f"the server's words: {str(error)[:300]}"
        ) from error


def _status_of(error: Exception) -> int | None:
    """The HTTP status in an exception of MLflow, or of the requests that carry artifacts."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def find_runs(client: MlflowClient, experiments: Sequence[str], condition: str) -> Iterator[Run]:
    """The runs that meet the condition, oldest first, page by page."""
    token: str | None = None
    while True:
        page = client.search_runs(
            list(experiments), condition, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
