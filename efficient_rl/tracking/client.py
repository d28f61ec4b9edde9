"""The tracking store: its URI, MLflow's client, and whether it accepts runs."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from efficient_rl.errors import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
SQLITE, SERVER_SCHEMES = "sqlite:///", ("http://", "https://")
MESSAGE_CHARACTERS = 200
LIBRARY_SETTINGS = {  # a store that is away must not hold a sweep up, and MLflow prints nothing
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def resolve_uri(uri: str | None) -> str | None:
    """The URI given, else of MLFLOW_TRACKING_URI, else a database here; None for `none`."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if chosen == "none":
        return None
    database = database_path(chosen)
    if database is not None:
        return f"{SQLITE}{database.resolve()}"
    return chosen if urlsplit(chosen).scheme else Path(chosen).resolve().as_uri()


def database_path(uri: str) -> Path | None:
    """The file of a local database; None for any other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def make_database(uri: str) -> None:
    """Make the file of a local database that is missing, with the rights that the umask leaves.

    SQLite would make it unwritable for the user's group.
    """
    database = database_path(uri)
    if database is not None and not database.exists():
        database.touch(mode=0o666)


def is_server(uri: str) -> bool:
    """Whether the store is a server that others run."""
    return uri.startswith(SERVER_SCHEMES)


def open_client(uri: str) -> "MlflowClient":
    """MLflow's client: quiet, and with short timeouts for a store that is away."""
    _configure()
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow", "urllib3"):  # they log what they raise too, at length
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def store_trouble(uri: str) -> tuple[str, str] | None:
    """What keeps a store from taking runs, and its remedy; None for a good or a new store."""
    _configure()
    if is_server(uri):
        return _server_trouble(uri)
    database = database_path(uri)
    if database is not None and (not database.exists() or database.stat().st_size == 0):
        return None
    if database is not None and not os.access(database, os.W_OK):
        return f"{database} is read-only for this user", f"chmod g+w {database}, or tracking.uri=..."
    return _schema_trouble(uri)


def _server_trouble(uri: str) -> tuple[str, str] | None:
    from mlflow.exceptions import MlflowException

    try:
        open_client(uri).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = "mlflow server --backend-store-uri ... on that host, or tracking.uri=..."
        return first_line(error)[:MESSAGE_CHARACTERS], remedy
    return None


def _schema_trouble(uri: str) -> tuple[str, str] | None:
    import sqlalchemy
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _verify_schema

    try:
        engine = sqlalchemy.create_engine(uri)
        try:
            _verify_schema(engine)
        finally:
            engine.dispose()
    except MlflowException as error:
        return first_line(error)[:MESSAGE_CHARACTERS], f"mlflow db upgrade {uri}"
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        remedy = "tracking.uri=<a store that answers>, or tracking=none"
        return first_line(error)[:MESSAGE_CHARACTERS], remedy
    return None


def _configure() -> None:
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
