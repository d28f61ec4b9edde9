"""Serves the MLflow UI on the tracking store and prints the page with a sweep's charts.

python -m efficient_rl.ui [sweep=NAME] [port=5000] [uri=sqlite:///mlflow.db] [output=outputs]
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from efficient_rl.cli import command_line, parse_settings
from efficient_rl.errors import ConfigError, did_you_mean, require
from efficient_rl.tracking.client import is_server, resolve_uri
from efficient_rl.tracking.views import charts_page, ui_command

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "file")
KEYS = ("sweep", "port", "uri", "output")
DEFAULTS = {"port": "5000", "output": "outputs"}


@command_line(usage=__doc__)
def main(arguments: Sequence[str]) -> int:
    """Print the address and become the server; 2 for a request that names nothing."""
    settings = _settings(arguments)
    page = charts_page(Path(settings["output"]), settings.get("sweep"))
    uri = resolve_uri(settings.get("uri"))
    if uri is not None and is_server(uri):
        print(f"open {uri.rstrip('/')}{page}")
        return 0
    print(f"open http://127.0.0.1:{settings['port']}{page}", flush=True)
    command = ui_command(str(uri), settings["port"])
    os.execv(command[0], command)


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
