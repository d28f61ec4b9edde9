"""The views of a tracked sweep: its charts, MLflow's UI and the attached report."""

import sys
from pathlib import Path

from efficient_rl.errors import ConfigError, did_you_mean, first_line
from efficient_rl.files import write_atomic
from efficient_rl.tracking.client import database_path, open_client

# An experiment's charts; sorted by a metric, because the UI folds nested runs away otherwise.
SORTED = "orderByKey=metrics.%60accuracy%60&orderByAsc=false"
CHARTS = "/#/experiments/{experiment}/runs?compareRunsMode=CHART&" + SORTED
CHARTS_FILE = "charts.txt"


def write_charts_page(folder: Path, experiment: str) -> None:
    """Note in the sweep's folder where its charts are."""
    write_atomic(folder / CHARTS_FILE, CHARTS.format(experiment=experiment))


def charts_page(outputs: Path, sweep: str | None) -> str:
    """The path of a sweep's charts in the UI, by default of the newest; "" before the first."""
    found = sorted(outputs.glob(f"sweeps/*/{CHARTS_FILE}"), key=lambda path: path.stat().st_mtime)
    named = {path.parent.name: path for path in found}
    if sweep is None:
        return found[-1].read_text() if found else ""
    if sweep not in named:
        raise ConfigError(f"no sweep {sweep!r} was tracked; {did_you_mean(sweep, named)}")
    return named[sweep].read_text()


def ui_command(uri: str, port: str) -> list[str]:
    """The command that serves MLflow's UI on the store."""
    options = ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", *options]


def attach(uri: str, sweep: str, folder: Path) -> str | None:
    """Log files as artifacts of the sweep's parent run, under `report`; why not, where it fails."""
    database = database_path(uri)
    if database is not None and not database.exists():
        return f"there is no database {database}"
    try:
        client = open_client(uri)
        experiment = client.get_experiment_by_name(sweep)
        found = []
        if experiment is not None:
            condition = f"tags.sweep_parent = '{sweep}'"
            found = client.search_runs([experiment.experiment_id], condition, max_results=1)
        if not found:
            return f"{uri} does not know the sweep {sweep}"
        client.log_artifacts(found[0].info.run_id, str(folder), "report")
    except Exception as error:  # noqa: BLE001 the store may fail in any way, the report is written
        return first_line(error)
    return None
