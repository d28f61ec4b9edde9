"""Checks the external needs of a run: the model's files, and the tracking store."""

import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from efficient_rl.config.run_config import RunConfig
from efficient_rl.config.schema import ModelConfig
from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.errors import first_line
from efficient_rl.preflight.checks import names_dataset
from efficient_rl.preflight.hub import is_cached, is_here
from efficient_rl.tracking.client import resolve_uri, store_trouble

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
    if is_cached(model.path):
        return [ok("model", f"{model.path} is in the hub's cache")]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        what = f"{model.path} is not in the cache, and HF_HUB_OFFLINE=1"
        return [
            Finding("failure", "model", what, "it cannot be loaded", f"hf download {model.path} where there is a network")
        ]
    if (refusal := _refusal(model.path)) is not None:
        return [Finding("failure", "model", refusal[0], "every run fails when it loads it", refusal[1])]
    why = "many runs that start at once fetch it at once; nodes often have no network"
    return [Finding("warning", "model", f"{model.path} is still on the hub", why, f"hf download {model.path}")]


def needs_hub(run: RunConfig) -> bool:
    """Whether the run loads something that may have to come from the hub."""
    return not is_here(run.model) or loads_from_hub(run)


def loads_from_hub(run: RunConfig) -> bool:
    """Whether a task of the run names a data set of the hub."""
    return any(names_dataset(part.arguments) for part in (run.task, *run.eval.sets))


def reach_hub() -> bool:
    """Whether the hub answers at all, whatever it says."""
    try:
        urlopen(Request(_endpoint(), method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", HUB)


def _refusal(path: str) -> tuple[str, str] | None:
    """Why the hub does not give this user the model, and what fixes it; None where it does."""
    if not reach_hub():
        what = f"{path} is not here, and {_endpoint()} does not answer"
        return what, f"hf download {path} where there is a network, then model.path=<folder>"
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        HfApi(endpoint=_endpoint()).auth_check(path)
    except GatedRepoError:
        what = f"{path} is gated, and the hub does not give it to you"
        return what, f"accept its conditions at {_endpoint()}/{path}, then hf auth login"
    except (HfHubHTTPError, OSError) as error:
        what = f"{path} is not here, and the hub does not give it ({first_line(error)})"
        return what, "model.path=<a name of the hub, or a folder>"
    return None


def check_tracking(uri: str | None) -> list[Finding]:
    """Whether the tracking store answers and has the tables of the installed MLflow."""
    resolved = resolve_uri(uri)
    if resolved is None:
        return [ok("tracking", "off")]
    trouble = store_trouble(resolved)
    if trouble is None:
        return [ok("tracking", f"{resolved} answers")]
    what, remedy = trouble
    why = "training continues and nothing is lost, but the runs cannot be compared until the store takes them"
    return [Finding("warning", "tracking", f"{resolved}: {what}", why, remedy)]
