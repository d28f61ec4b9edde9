"""Names groups of runs by what sets them apart, and by nothing else."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STRATEGY = "strategy.name"
LOCATIONS = ("target", "path", "fingerprint")  # where an option comes from; only shown where nothing else differs
LONGEST_TEXT = 40


def make_labels(groups: Sequence[Mapping[str, Any]], apart: tuple[str, ...] = ()) -> list[str]:
    """A label for every group of flat parameters: its strategy, then what varies between groups of the same strategy.

    A value that follows from the strategy, or from other shown options, is left out: `first_k k=2`,
    `lora rank=8`. So are the parameters under the prefixes `apart` and what follows from them:
    make_setting_labels names those.
    """
    plain = _shortened([_readable(group) for group in groups])
    named_apart = {key: None for group in plain for key in group if key.startswith(apart)}
    keys = _telling_keys(plain, (STRATEGY, *named_apart))
    return [" ".join([str(group.get(STRATEGY, "?")), *_terms(group, keys)]) for group in plain]


def make_setting_labels(groups: Sequence[Mapping[str, Any]], prefixes: tuple[str, ...]) -> list[str]:
    """For every group, what varies among its parameters under `prefixes`; "" throughout where nothing does."""
    plain = _shortened(
        [_readable({key: value for key, value in group.items() if key.startswith(prefixes)}) for group in groups]
    )
    keys = _telling_keys(plain, ())
    return [" ".join(_terms(group, keys)) for group in plain]


def _readable(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without the seed; the terms of the reward stand together under `reward`."""
    terms = [str(value) for key, value in params.items() if key.startswith("reward.") and key.endswith(".name")]
    rest = {key: value for key, value in params.items() if key != "seed"}
    return {**rest, "reward": "+".join(terms)} if terms else rest


def _shortened(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Numbers with as few digits as keep different values of a key apart, and three at least."""
    values: dict[str, set[float]] = {}
    for group in groups:
        for key, value in group.items():
            if isinstance(value, float):
                values.setdefault(key, set()).add(value)
    digits = {
        key: next((count for count in range(3, 17) if len({_round(value, count) for value in each}) == len(each)), 17)
        for key, each in values.items()
    }
    return [
        {key: _round(value, digits[key]) if isinstance(value, float) else value for key, value in group.items()}
        for group in groups
    ]


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _telling_keys(groups: Sequence[Mapping[str, Any]], given: tuple[str, ...]) -> list[str]:
    """The keys that, next to the `given` ones, tell the groups apart.

    The options of groups (`model.name`) come first: they explain what they bring along
    (`grpo.learning_rate`).
    """
    keys = list(dict.fromkeys(key for group in groups for key in group if key not in given))
    options = [key for key in keys if _is_option(key) and not _follows(key, given, groups)]
    places = [key for key in keys if key.rpartition(".")[2] in LOCATIONS]
    values = [key for key in keys if not _is_option(key) and key not in places]
    kept = options + [key for key in values if not _follows(key, (*given, *options), groups)]
    for key in sorted(places, key=lambda key: LOCATIONS.index(key.rpartition(".")[2])):
        if not _follows(key, (*given, *kept), groups):
            kept.append(key)
    return sorted(kept, key=lambda key: not key.startswith("strategy."))


def _is_option(key: str) -> bool:
    return key == "reward" or (key.count(".") == 1 and key.endswith(".name"))


def _follows(key: str, causes: Iterable[str], groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether groups that agree in all `causes` agree in `key`; having no value is a value."""
    causes = tuple(causes)
    seen: dict[tuple[str, ...], str] = {}
    return all(
        seen.setdefault(tuple(_value(group, cause) for cause in causes), _value(group, key)) == _value(group, key)
        for group in groups
    )


def _value(group: Mapping[str, Any], key: str) -> str:
    return repr(group[key]) if key in group else ""


def _terms(group: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    short = [_short(key) for key in keys]
    return [
        f"{name if short.count(name) == 1 else key}={_text(group[key])}"
        for key, name in zip(keys, short, strict=True)
        if key in group
    ]


def _short(key: str) -> str:
    """The key without its group; the option of a group goes by the group's name (`model.name`: `model`)."""
    group, _, rest = key.partition(".")
    return rest if rest and rest != "name" else group


def _text(value: Any) -> str:
    """The value as YAML would show it; of a long text its start and a digest."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list() | tuple():
            text = f"[{','.join(_text(item) for item in value)}]"
        case _:
            text = " ".join(str(value).split())
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT - 8]}…{hashlib.sha256(text.encode()).hexdigest()[:4]}"
