"""Labels runs and groups of runs by their differences: the strategy, then what varies."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from efficient_rl.config.run_config import RunConfig

STRATEGY = "strategy.name"
PLACES = ("target", "path", "fingerprint")  # where an option comes from; shown where nothing else differs
MISSING = object()
LONGEST_TEXT = 40
Params = Mapping[str, Any]


def label_runs(runs: Iterable[RunConfig]) -> dict[str, str]:
    """A label for every run, by hash: its configuration's, and the seed if it has several."""
    members: dict[str, list[tuple[str, Any]]] = {}
    configurations: dict[str, Params] = {}
    for run in runs:
        params = run.flat()
        seed = params.pop("seed")
        identity = json.dumps(params, sort_keys=True)
        configurations[identity] = params
        members.setdefault(identity, []).append((run.config_hash, seed))
    labels = {}
    for identity, label in zip(configurations, make_labels([*configurations.values()]), strict=True):
        for key, seed in members[identity]:
            labels[key] = label if len(members[identity]) == 1 else f"{label} seed={seed}"
    return labels


def make_labels(groups: Sequence[Params], apart: tuple[str, ...] = ()) -> list[str]:
    """A label for every group of flat parameters: its strategy, then what varies within it.

    A value that follows from the strategy, or from other shown options, is left out: `first_k k=2`,
    `lora rank=8`. So are the parameters under the prefixes `apart` and what follows from them:
    make_setting_labels names those.
    """
    plain = _plain(groups)
    given = [STRATEGY]
    if apart:
        given += [key for key in _all_keys(plain) if key.startswith(apart)]
    terms = _terms(plain, _telling_keys(plain, given))
    return [" ".join([str(group.get(STRATEGY, "?")), *each]) for group, each in zip(plain, terms, strict=True)]


def make_setting_labels(groups: Sequence[Params], prefixes: tuple[str, ...]) -> list[str]:
    """For every group, its varying parameters under `prefixes`; "" throughout if none varies."""
    plain = _plain(groups, prefixes)
    return [*map(" ".join, _terms(plain, _telling_keys(plain, [])))]


def label_params(params: Params) -> str:
    """A trial of a search by its parameters, with short keys and numbers."""
    terms = []
    for key, value in params.items():
        text = f"{value:.3g}" if isinstance(value, float) else value
        terms.append(f"{key.rpartition('.')[2]}={text}")
    return " ".join(terms) or "the only point"


def _plain(groups: Sequence[Params], prefixes: tuple[str, ...] = ("",)) -> list[dict[str, Any]]:
    """The parameters under the prefixes: no seed, one `reward` for its terms, short numbers."""
    plain = []
    for group in groups:
        kept, terms = {}, []
        for key, value in group.items():
            if key != "seed" and key.startswith(prefixes):
                kept[key] = value
                if key.startswith("reward.") and key.endswith(".name"):
                    terms.append(str(value))
        if terms:
            kept["reward"] = "+".join(terms)
        plain.append(kept)
    for key in _all_keys(plain):
        holders = [group for group in plain if isinstance(group.get(key), float)]
        digits = _digits({group[key] for group in holders})
        for group in holders:
            group[key] = _round(group[key], digits)
    return plain


def _digits(values: set[float]) -> int:
    """How many significant digits keep the values apart, at least three."""
    for digits in range(3, 17):
        if len({_round(value, digits) for value in values}) == len(values):
            return digits
    return 17


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _all_keys(groups: Sequence[Params]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(groups)))


def _telling_keys(groups: Sequence[Params], given: Sequence[str]) -> list[str]:
    """The keys that, next to the `given` ones, tell the groups apart.

    The options of groups (`model.name`) come first: they explain what they bring along
    (`grpo.learning_rate`). Places come last, and only as many as are needed.
    """
    keys = [key for key in _all_keys(groups) if key not in given]
    columns = {key: [repr(group.get(key, MISSING)) for group in groups] for key in (*keys, *given)}

    def varies(key: str, causes: Sequence[str]) -> bool:
        """Whether groups that agree in all `causes` differ in `key`; having no value is a value."""
        known = [[""] * len(groups), *map(columns.__getitem__, causes)]
        return len(set(zip(*known, strict=True))) < len(set(zip(*known, columns[key], strict=True)))

    options = [*filter(_is_option, keys)]
    places = sorted(filter(_place, keys), key=_place)
    values = [key for key in keys if key not in options and key not in places]
    kept: list[str] = []
    for batch in (options, values, *zip(places, strict=True)):
        causes = [*given, *kept]
        kept += [key for key in batch if varies(key, causes)]
    return sorted(kept, key=lambda key: not key.startswith("strategy."))


def _is_option(key: str) -> bool:
    return key == "reward" or (key.count(".") == 1 and key.endswith(".name"))


def _place(key: str) -> int:
    """The rank, from 1, of a key that says where an option comes from; 0 for other keys."""
    name = key.rpartition(".")[2]
    return PLACES.index(name) + 1 if name in PLACES else 0


def _terms(groups: Sequence[Params], keys: Sequence[str]) -> list[list[str]]:
    """The `name=value` of every key that a group has, with short names where unambiguous."""
    names = dict(zip(keys, map(_short, keys), strict=True))
    uses = Counter(names.values())
    terms = []
    for group in groups:
        shown = []
        for key, name in names.items():
            if key in group:
                shown.append(f"{name if uses[name] == 1 else key}={_text(group[key])}")
        terms.append(shown)
    return terms


def _short(key: str) -> str:
    """The key without its group; a group's option has the group's name (`model.name`: `model`)."""
    group, _, rest = key.partition(".")
    return rest if rest and rest != "name" else group


def _text(value: Any) -> str:
    """The value as YAML would show it; of a long text its start and a digest."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list() | tuple():
            text = f"[{','.join(map(_text, value))}]"
        case _:
            text = " ".join(str(value).split())
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT - 8]}…{hashlib.sha256(text.encode()).hexdigest()[:4]}"
