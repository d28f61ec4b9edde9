"""Problems from data sets: any on the Hugging Face hub, or local files, by a mapping of columns."""

import functools
import logging
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.tasks.layout import Layout, LeftOut
from efficient_rl.tasks.parsing import Difficulty
from efficient_rl.tasks.problem import Problem, Split, shuffled, split_of
from efficient_rl.tasks.rows import Location

logger = logging.getLogger(__name__)
COLUMNS = ("question", "answer", "options", "solution", "source")
Columns = str | Sequence[str] | None
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 60


@dataclass(frozen=True)
class Table:
    r"""A data set with one problem a row.

    `dataset`, `config` (one or a list), `split` and `revision` name it on the hub, `files` a single
    file inside it; `path`, a local file (`files.read_rows`) or a folder of such files named after
    their splits, goes before them. A column option (`question`, `answer`, `solution`, `options`,
    `source`, `difficulty`) is a name or a list of names, of which the first that a row has is read;
    `a.b` is what the column a holds under b. The question may be a list of chat messages
    (`parsing.question_text`).

    The answer is the whole answer column, or the first group of the last match of `answer_pattern`
    in it, or with `boxed` what its last \boxed{} holds. `check` verifies it: exact `number`, `math`
    (an expression), or `choice` (the letter of one of `options`). `difficulty` is a number, a
    column, or the fields of `parsing.Difficulty`. `where` maps columns to the value, or the list of
    values, that a row must have. `source` falls back to `label`.

    `held_out` says what is never trained on: `hash`, a tenth by content; `all`; `split:test`;
    `path:<file or folder>`; or the fields of `rows.Location` for another data set.
    Rows without a question, an answer that parses or a difficulty are left out and counted in the
    log, and so are repeated questions, and training rows that are held out.
    """

    question: Columns = "question"
    answer: Columns = "answer"
    dataset: str | None = None
    config: Columns = None
    split: str = "train"
    path: str | None = None
    revision: str | None = None
    files: str | None = None
    answer_pattern: str | None = None
    boxed: bool = False
    check: str = "math"
    options: Columns = None
    solution: Columns = None
    difficulty: Any = 1.0
    source: Columns = None
    label: str = "table"
    where: Mapping[str, Any] | None = None
    held_out: Any = "hash"
    layout: Layout = field(init=False, repr=False)
    location: Location = field(init=False, repr=False)
    kept_location: Location | str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.path is None and self.dataset is None:
            raise ValueError("task.dataset and task.path are both missing; give a data set on the hub or a local file")
        location = Location(self.dataset, _names(self.config), self.split, self.path, self.revision, self.files)
        where = self.where or {}
        columns = {name: _names(getattr(self, name)) for name in COLUMNS}
        layout = Layout(
            **columns,
            answer_pattern=self.answer_pattern,
            boxed=self.boxed,
            check=self.check,
            difficulty=_difficulty(self.difficulty),
            label=self.label,
            where=tuple(zip(where, map(_allowed, where.values()), strict=True)),
        )
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "kept_location", _held_out(self.held_out, location))

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of one side in an order that the seed decides, all of them for count=0.

        ValueError where there are too few, or where the data set cannot be read.
        """
        locations = (self.location, self.kept_location)
        changed = tuple(each.state() for each in locations if isinstance(each, Location))
        sides = _sides(self.layout, self.location, self.kept_location, changed)
        return shuffled(sides[split], count, seed, f"{split} problems of {self.location}")


def _names(value: Columns) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())


def _allowed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _difficulty(given: Any) -> Difficulty:
    if isinstance(given, int | float):
        return Difficulty(default=float(given))
    values = dict(given) if isinstance(given, Mapping) else {"columns": given}
    known = Difficulty.__dataclass_fields__
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"task.difficulty has no {', '.join(unknown)}; use {', '.join(known)}")
    return Difficulty(**{**values, "columns": _names(values.get("columns"))})


def _held_out(given: Any, train: Location) -> Location | str:
    """Where the held-out rows are; `hash` or `all` where they are among the training rows."""
    if given in ("hash", "all"):
        return str(given)
    if isinstance(given, Mapping):
        values = dict(given)
        unknown = sorted(set(values) - {"dataset", "config", "split", "path", "revision", "files"})
        if unknown or not (values.get("dataset") or values.get("path")):
            raise ValueError(f"task.held_out={values} needs dataset or path, beside config, split, revision, files")
        configs = _names(values.pop("config", None))
        return Location(configs=configs, **values)
    kind, _, value = str(given).partition(":")
    if kind == "split" and value:
        if train.path is not None and not Path(train.path).expanduser().is_dir():
            raise ValueError(
                f"task.held_out={given} needs a data set with splits, but task.path={train.path} is not a folder; "
                "use task.held_out=path:<file> or hash"
            )
        return replace(train, split=value)
    if kind == "path" and value:
        return Location(path=value)
    raise ValueError(
        f"task.held_out={given!r} is not known; use hash, all, split:<name>, path:<file> or a mapping with dataset"
    )


@functools.lru_cache(maxsize=4)
def _sides(
    layout: Layout, location: Location, held_out: Location | str, changed: tuple[tuple[int, int] | None, ...]
) -> Mapping[Split, Sequence[Problem]]:
    """Both sides, without a question on both; `changed` tells states of the files apart."""
    rows = _read(layout, location)
    if isinstance(held_out, Location):
        kept = _read(layout, held_out)
    else:
        kept = {key: problem for key, problem in rows.items() if held_out == "all" or split_of(key) == "held_out"}
    train = [problem for key, problem in rows.items() if key not in kept]
    if isinstance(held_out, Location) and len(train) < len(rows):
        logger.warning("%d rows of %s are held out too; they are not trained on", len(rows) - len(train), location)
    return {"train": train, "held_out": list(kept.values())}


def _read(layout: Layout, location: Location) -> dict[str, Problem]:
    """The problems of one location by their keys; what is left out is counted in the log."""
    found: dict[str, Problem] = {}
    reasons: Counter[str] = Counter()
    examples: dict[str, Any] = {}
    there: set[str] = set()
    for row in location.rows(layout.columns):
        there |= row.keys()
        problem = layout.problem(row)
        if isinstance(problem, LeftOut):
            reasons[problem.reason] += 1
            examples.setdefault(problem.reason, problem.value)
        elif problem.key in found:
            reasons["question seen before"] += 1
        else:
            found[problem.key] = problem
    absent = layout.absent(there, needed=not found)
    left_out = ", ".join(_told(reason, number, examples) for reason, number in reasons.most_common(8))
    if not found:
        raise _nothing(layout, location, absent, left_out)
    for option, name in absent:
        logger.warning("task.%s=%r is no column of %s; nothing is read for it", option, name, location)
    if reasons:
        logger.warning("%d problems in %s; rows left out: %s", len(found), location, left_out)
    return found


def _nothing(layout: Layout, location: Location, absent: Sequence[tuple[str, str]], left_out: str) -> ConfigError:
    """The error that no row is a problem: a column is missing, or all rows are left out."""
    names = location.names()
    if not names:
        return ConfigError(f"{location} has no rows with columns; give a data set that has")
    if absent:
        option, name = absent[0]
        return ConfigError(f"task.{option}={name!r} is no column of {location}; {did_you_mean(name, names)}")
    return ConfigError(
        f"no row of {location} is a problem ({left_out}); check the columns {', '.join(layout.columns)}; "
        f"there are {', '.join(names)}"
    )


def _told(reason: str, number: int, examples: Mapping[str, Any]) -> str:
    example = f" (such as {SHORT.repr(examples[reason])})" if reason in examples else ""
    return f"{reason}: {number}{example}"
