"""Checks what a run needs from elsewhere: the model's files, and the tracking store."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.sections import ModelConfig
from efficient_rl.tracking import resolve_uri, store_trouble

HUB = "https://huggingface.co"
SECONDS = 10


def check_model(model: ModelConfig) -> list[Finding]:
    """Whether the model is here, or can be fetched."""
    if model.folder is not None:
        named = model.gguf_file or "config.json"
        if not (model.folder / named).is_file():
            what = f"{model.folder} has no {named}"
            return [
                Finding("failure", "model", what, "it cannot be loaded", "model.path=<a folder that save_pretrained wrote>")
            ]
        return [ok("model", f"{model.name} is in {model.folder}")]
    if _cached(model.path):
        return [ok("model", f"{model.path} is in the hub's cache")]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        what = f"{model.path} is not in the cache, and HF_HUB_OFFLINE=1"
        return [
            Finding("failure", "model", what, "it cannot be loaded", f"hf download {model.path} where there is a network")
        ]
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    try:
        urllib.request.urlopen(f"{endpoint}/api/models/{model.path}", timeout=SECONDS).close()
    except (urllib.error.URLError, OSError) as error:
        what = f"{model.path} is not here, and {endpoint} does not give it ({error})"
        remedy = (
            f"hf download {model.path} where there is a network, then model.path=<folder>; `hf auth login` for a gated one"
        )
        return [Finding("failure", "model", what, "every run fails when it loads it", remedy)]
    why = "many runs that start at once fetch it at once; nodes often have no network"
    return [Finding("warning", "model", f"{model.path} is still on the hub", why, f"hf download {model.path}")]


def _cached(path: str) -> bool:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return any((cache / f"models--{path.replace('/', '--')}" / "snapshots").glob("*/config.json"))


def check_tracking(uri: str | None) -> list[Finding]:
    """Whether the tracking store answers and has the tables of the installed MLflow."""
    resolved = resolve_uri(uri)
    if resolved is None:
        return [ok("tracking", "off")]
    trouble = store_trouble(resolved)
    if trouble is None:
        return [ok("tracking", f"{resolved} answers")]
    what, remedy = trouble
    why = "training goes on and nothing is lost, but the runs cannot be compared until the store takes them"
    return [Finding("warning", "tracking", f"{resolved}: {what}", why, remedy)]
