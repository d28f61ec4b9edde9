"""Reads the rows of a data set: from the Hugging Face hub, or from files of this machine."""

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from efficient_rl.errors import first_line

Row = Mapping[str, Any]


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
        """All rows with those of the `columns` that there are; ValueError names what is missing."""
        if self.path is not None:
            return _local(Path(self.path).expanduser(), self.split, columns)
        return chain.from_iterable(self._from_hub(config, columns) for config in self.configs or (None,))

    def _from_hub(self, config: str | None, columns: Sequence[str]) -> Iterator[Row]:
        try:
            if self.files is not None:
                return _file(Path(self._download(config)), columns)
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


def _loaded(name: str, config: str | None, split: str, columns: Sequence[str], **options: Any) -> Iterator[Row]:
    from datasets import load_dataset

    data = load_dataset(name, config, split=split, **options)
    known = [column for column in columns if column in data.column_names]
    return _unbatched(data.select_columns(known), known) if known else iter(())


def _unbatched(data: Any, columns: Sequence[str]) -> Iterator[Row]:
    for batch in data.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _local(path: Path, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file, or of all files below a folder whose names begin with the split's name.

    They are read here: the library's cache tells folders apart by their last name only.
    """
    if path.is_file():
        return _file(path, columns)
    if not path.is_dir():
        raise ValueError(
            f"task.path={str(path)!r} is neither a file nor a folder here; give one, or a hub name as task.dataset"
        )
    files = sorted(file for file in path.rglob(f"{split}*") if _kind(file) in READERS and file.is_file())
    if not files:
        raise ValueError(
            f"task.path={str(path)!r} has no file for the split {split!r}; name them {split}*.parquet or another of "
            f"{', '.join(READERS)}"
        )
    return chain.from_iterable(_file(file, columns) for file in files)


def _kind(path: Path) -> str:
    return path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix


def _file(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    if _kind(path) not in READERS:
        raise ValueError(f"{path.name!r} has no known ending; use one of {', '.join(READERS)}, the text ones also with .gz")
    return READERS[_kind(path)](path, columns)


def _text(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        yield from stream


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(_text(path), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}; every line must hold one JSON object") from error
            yield _selected(row, columns, f"{path}, line {number}")


def _json(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    rows = json.loads("".join(_text(path)))
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds a {type(rows).__name__}; it must hold a list of objects")
    for number, row in enumerate(rows, 1):
        yield _selected(row, columns, f"{path}, object {number}")


def _selected(row: Any, columns: Iterable[str], where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}; it must be an object")
    return {column: row[column] for column in columns if column in row}


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for row in csv.DictReader(_text(path)):
        yield _selected(row, columns, str(path))


def _tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Lines of question, tab, answer without a header: how MGSM is published."""
    for line in _text(path):
        question, tab, answer = line.rstrip("\n").rpartition("\t")
        if tab:
            yield _selected({"question": question, "answer": answer}, columns, str(path))


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        known = [column for column in columns if column in file.schema_arrow.names]
        for batch in file.iter_batches(columns=known):
            yield from batch.to_pylist()


READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
}
