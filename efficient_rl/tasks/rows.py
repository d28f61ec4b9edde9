"""Locates the rows of a data set, on the Hugging Face hub or this machine, and picks columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from efficient_rl.errors import first_line
from efficient_rl.tasks.files import ENDINGS, Columns, Row, kind_of, read_rows, rows_of, top_level
from efficient_rl.tasks.parsing import structured

MISSING = object()
MOST_NAMES = 40


@dataclass(frozen=True)
class Location:
    """Where rows lie: `path`, a local file or folder, before `dataset`, one on the hub.

    `configs` are the hub's configurations, read one after the other; none is its default. `files`
    names one file inside the hub's data set instead, for those that the library cannot load; it may
    hold {config} and {split}.
    """

    dataset: str | None = None
    configs: tuple[str, ...] = ()
    split: str = "train"
    path: str | None = None
    revision: str | None = None
    files: str | None = None

    def __str__(self) -> str:
        if self.configs:
            return self.path or f"{self.dataset} ({', '.join(self.configs)}), split {self.split}"
        return self.path or f"{self.dataset}, split {self.split}"

    def state(self) -> tuple[int, int] | None:
        """What tells a changed local file apart, so that nothing stale is served."""
        if self.path is None or not Path(self.path).expanduser().is_file():
            return None
        status = Path(self.path).expanduser().stat()
        return status.st_mtime_ns, status.st_size

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """All rows with those of the `columns` that there are; ValueError names what is missing.

        `a.b` is the column of that name, or what the column `a` holds under `b`.
        """
        return (_selected(row, columns) for row in self._read(columns))

    def names(self) -> list[str]:
        """The names of the first row's columns, nested ones with dots, as many as one can read."""
        return list(islice(_names(next(self._read(None), {})), MOST_NAMES))

    def _read(self, columns: Columns) -> Iterator[Row]:
        if self.path is not None:
            return _local(Path(self.path).expanduser(), self.split, columns)
        return chain.from_iterable(self._from_hub(config, columns) for config in self.configs or (None,))

    def _from_hub(self, config: str | None, columns: Columns) -> Iterator[Row]:
        try:
            if self.files is not None:
                return read_rows(Path(self._download(config)), columns)
            return _loaded(str(self.dataset), config, self.split, columns, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot load the data set {self.dataset!r} ({first_line(error)}); without a network give a local copy as "
                "task.path=<file or folder>; for a gated one accept its conditions on the hub and run `hf auth login` first"
            ) from error

    def _download(self, config: str | None) -> str:
        from huggingface_hub import hf_hub_download

        file = str(self.files).format(config=config, split=self.split)
        return str(hf_hub_download(str(self.dataset), file, repo_type="dataset", revision=self.revision))


def _loaded(name: str, config: str | None, split: str, columns: Columns, **options: Any) -> Iterator[Row]:
    from datasets import load_dataset

    data = load_dataset(name, config, split=split, **options)
    known = top_level(data.column_names, columns)
    batches = data.select_columns(known).with_format("arrow").iter(batch_size=1000) if known else ()
    return chain.from_iterable(map(rows_of, batches))


def _local(path: Path, split: str, columns: Columns) -> Iterator[Row]:
    """The rows of a file, or of the files of a split below a folder.

    These begin with the split's name, or else lie in a folder that does. They are read here: the
    library's cache tells folders apart by their last name only.
    """
    if path.is_file():
        return read_rows(path, columns)
    if not path.is_dir():
        raise ValueError(
            f"task.path={str(path)!r} is neither a file nor a folder here; give one, or a hub name as task.dataset"
        )
    known = sorted(file for file in path.rglob("*") if kind_of(file) in ENDINGS and file.is_file())
    files = [file for file in known if file.name.startswith(split)]
    files = files or [file for file in known if file.relative_to(path).parent.name.startswith(split)]
    if not files:
        there = ", ".join(str(file.relative_to(path)) for file in known[:5]) or "no data at all"
        raise ValueError(
            f"task.path={str(path)!r} has no file for the split {split!r}; name them {split}*.parquet or another of "
            f"{', '.join(ENDINGS)}, or give one file; there is {there}"
        )
    return chain.from_iterable(read_rows(file, columns) for file in files)


def _selected(row: Row, columns: Iterable[str]) -> Row:
    found = {column: _value(row, column) for column in columns}
    return {column: value for column, value in found.items() if value is not MISSING}


def _value(node: Any, column: str) -> Any:
    """The value of a column, or of that place in a nested one; MISSING where there is none."""
    if isinstance(node, Mapping):
        if column in node:
            return node[column]
        for place, letter in enumerate(column):
            if letter == "." and column[:place] in node:
                return _value(structured(node[column[:place]]), column[place + 1 :])
    return MISSING


def _names(row: Row, prefix: str = "") -> Iterator[str]:
    """The names of all columns, nested ones with dots."""
    for key, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
