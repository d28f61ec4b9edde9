"""Names that people read: of a sweep after its overrides, of a run after what sets it apart."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from efficient_rl.config.run_config import RunConfig

MAX_NAME_CHARACTERS = 80
NOT_NAMING = (
    "dry_run",
    "force",
    "output",
    "launcher",
    "tracking",
    "name",
    "sweep",
    "checkpoint_steps",
    "checkpoint_minutes",
)
NOT_NAMING_BELOW = "search."  # a search with more trials is the same search


def sweep_name(overrides: Sequence[str], file_name: str | None = None) -> str:
    """A name for files and reports, from the sweep file and what the overrides say is run; long ones end in a digest."""
    keys = {text: text.split("=")[0].lstrip("+~") for text in overrides}
    told = [
        text for text, key in keys.items() if key.split(".")[0] not in NOT_NAMING and not key.startswith(NOT_NAMING_BELOW)
    ]
    told = [file_name, *told] if file_name else told
    name = re.sub(r"[^A-Za-z0-9_.,=-]+", "-", "_".join(told)).replace(",", "-").replace("=", "-").strip("-") or "default"
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    return f"{name[: MAX_NAME_CHARACTERS - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def label_runs(runs: Iterable[RunConfig]) -> dict[str, str]:
    """For each run's hash its strategy and the values that set it apart from the others of its strategy, and its seed."""
    flat = {run.config_hash: run.flat() for run in runs}
    groups: dict[Any, list[dict[str, Any]]] = {}
    for values in flat.values():
        groups.setdefault(values["strategy.name"], []).append(values)
    varying = {name: _varying(members) for name, members in groups.items()}
    return {key: _label(values, varying[values["strategy.name"]]) for key, values in flat.items()}


def _varying(members: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that differ among the members, the seed last."""
    first = members[0]
    different = [key for key in first if any(str(member.get(key)) != str(first[key]) for member in members)]
    return sorted((key for key in different if not key.endswith((".target", ".fingerprint"))), key=lambda key: key == "seed")


def _label(values: dict[str, Any], keys: Sequence[str]) -> str:
    parts = [f"{key.removesuffix('.name').split('.')[-1]}={values[key]}" for key in keys if key in values]
    return " ".join([str(values["strategy.name"]), *parts])
