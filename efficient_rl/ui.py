"""Serves the MLflow UI on the tracking store and prints the page with a sweep's charts.

python -m efficient_rl.ui [sweep=NAME] [port=5000] [uri=sqlite:///mlflow.db] [output=outputs]
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from efficient_rl.cli import command_line, parse_settings
from efficient_rl.errors import ConfigError, did_you_mean, require
from efficient_rl.tracking.collector import resolve_uri

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "file")
KEYS = ("sweep", "port", "uri", "output")
DEFAULTS = {"port": "5000", "output": "outputs"}


@command_line(usage=__doc__)
def main(arguments: Sequence[str]) -> int:
    """Print the address and become the server; 2 for a request that names nothing."""
    settings = _settings(arguments)
    page = charts_page(Path(settings["output"]), settings.get("sweep"))
    uri = resolve_uri(settings.get("uri"))
    if uri is None or not uri.startswith(("http://", "https://")):
        print(f"open http://127.0.0.1:{settings['port']}{page}", flush=True)
        command = ["-m", "mlflow", "ui", "--backend-store-uri", str(uri), "--host", "127.0.0.1", "--port", settings["port"]]
        os.execv(sys.executable, [sys.executable, *command, "--workers", "1"])
    print(f"open {uri.rstrip('/')}{page}")
    return 0


def charts_page(outputs: Path, sweep: str | None) -> str:
    """The path of a sweep's charts in the UI, of the newest one without a name, "" before the first."""
    found = sorted(outputs.glob("sweeps/*/charts.txt"), key=lambda path: path.stat().st_mtime)
    if sweep is None:
        return found[-1].read_text() if found else ""
    for path in found:
        if path.parent.name == sweep:
            return path.read_text()
    raise ConfigError(f"no sweep {sweep!r} was tracked; {did_you_mean(sweep, (path.parent.name for path in found))}")


def _settings(arguments: Sequence[str]) -> dict[str, str]:
    settings = DEFAULTS | parse_settings(arguments, KEYS)
    port, uri = settings["port"], settings.get("uri", "")
    require(port.isdigit() and 1 <= int(port) <= 65535, "port", port, "must be a whole number from 1 to 65535")
    scheme = uri.partition("://")[0]
    if "://" in uri and scheme.partition("+")[0] not in SCHEMES:
        raise ConfigError(f"uri={uri!r} is no tracking store; {did_you_mean(scheme, SCHEMES)}")
    return settings


if __name__ == "__main__":
    sys.exit(main())
