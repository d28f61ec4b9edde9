"""Problems from data sets: any on the Hugging Face hub, or local files, by a mapping of columns."""

import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from efficient_rl.tasks.layout import Layout
from efficient_rl.tasks.parsing import Difficulty
from efficient_rl.tasks.problem import Problem, Split, shuffled, split_of
from efficient_rl.tasks.rows import Location

logger = logging.getLogger(__name__)
COLUMNS = ("question", "answer", "options", "solution", "source")
Columns = str | Sequence[str] | None


@dataclass(frozen=True)
class Table:
    r"""A data set with one problem a row.

    `dataset`, `config` (one or a list), `split` and `revision` name it on the hub, `files` a single
    file inside it; `path`, a local file (.jsonl, .json, .csv, also with .gz, or .parquet) or a
    folder of such files named after their splits, goes before them. A column option (`question`,
    `answer`, `solution`, `options`, `source`, `difficulty`) is a name or a list of names, of which
    the first that a row has is read.

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
    left_out: Counter[str] = Counter()
    for row in location.rows(layout.columns):
        problem = layout.problem(row)
        if isinstance(problem, str):
            left_out[problem] += 1
        elif problem.key in found:
            left_out["question seen before"] += 1
        else:
            found[problem.key] = problem
    reasons = ", ".join(f"{reason}: {number}" for reason, number in left_out.most_common(8))
    if not found:
        raise ValueError(f"no row of {location} is a problem ({reasons}); check the columns {', '.join(layout.columns)}")
    if left_out:
        logger.warning("%d problems in %s; rows left out: %s", len(found), location, reasons)
    return found
