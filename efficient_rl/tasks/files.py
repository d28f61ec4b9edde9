"""Reads the rows of one local file: JSON, CSV, TSV or Parquet, compressed or not."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from efficient_rl.errors import first_line

Row = Mapping[str, Any]
Columns = Sequence[str] | None  # those wanted, None for all
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
NOT_DATA = {  # how such files begin, and what to do about them
    b"pk\x03\x04": "is a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as CSV",
    b"version https://git-lfs": "is a pointer of Git LFS; run `git lfs pull` to get the file itself",
    b"<!doctype": "is a web page; download the file itself",
    b"<html": "is a web page; download the file itself",
}
DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError, csv.Error)
DELIMITERS = ",;\t|"
MAX_CELL = 1 << 30  # characters of a CSV cell: solutions may exceed the library's 131,072


def read_rows(path: Path, wanted: Columns = None) -> Iterator[Row]:
    """The rows of a file, with at least those of the `wanted` columns that it has.

    The content decides where it can: compression, text encoding and Parquet go by the first bytes,
    a list of objects or one object a line by the first character, the delimiter of a CSV by its
    header. The ending tells JSON, CSV and TSV apart. A nested column is wanted by its dotted name.
    ValueError names the file and the remedy.
    """
    kind = kind_of(path)
    if kind not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise ValueError(f"{path.name!r} has no known ending; use one of {known}, also with {', '.join(COMPRESSED)}")
    try:
        with _opened(path) as stream:
            start = stream.peek(4)[:4]
            if kind == PARQUET or start == b"PAR1":
                yield from _parquet(stream, str(path), wanted)
                return
            with io.TextIOWrapper(stream, encoding=json.detect_encoding(start), newline="") as text:
                yield from TEXTS[kind](text, str(path), wanted)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path} is no text in {error.encoding} (it has a byte {byte:#x}); save it as UTF-8") from error
    except DAMAGES as error:
        raise ValueError(f"{path} is damaged or cannot be read ({first_line(error)}); copy it again") from error


def kind_of(path: Path) -> str:
    """The ending that says the format, in small letters, whatever the compression."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


def _opened(path: Path) -> Any:
    """A stream of the content, decompressed; the first bytes tell how, not the name."""
    with path.open("rb") as stream:
        start = stream.read(32)
    for sign, remedy in NOT_DATA.items():
        if start.lower().startswith(sign):
            raise ValueError(f"{path} {remedy}")
    for sign, opened in OPENERS.items():
        if start.startswith(sign):
            return opened(path)
    return path.open("rb")


def _zstandard(path: Path) -> IO[bytes]:
    from pyarrow import CompressedInputStream

    return io.BufferedReader(io.BytesIO(CompressedInputStream(str(path), "zstd").read()))


OPENERS: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _zstandard,
}


def _json(text: IO[str], path: str, wanted: Columns) -> Iterator[Row]:
    lines = 0
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        lines += 1
        if lines == 1 and line.lstrip().startswith("["):
            yield from _objects(line + text.read(), path)
        else:
            yield _parsed(line, f"{path}, line {number}")


def _objects(text: str, path: str) -> Iterator[Row]:
    rows = _parsed(text, path, list)
    for number, row in enumerate(rows, 1):
        yield _checked(row, f"{path}, object {number}")


def _parsed(text: str, where: str, kind: type = dict) -> Any:
    try:
        value = json.loads(text.lstrip("\ufeff"))  # a mark also stands where files were put together
    except (ValueError, RecursionError) as error:
        said = first_line(error)
        raise ValueError(f"{where}: {said}; every line must hold one JSON object, or the file one list of them") from error
    return _checked(value, where, kind)


def _checked(value: Any, where: str, kind: type = dict) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is a {type(value).__name__}; it must be an object")
    return value


def _csv(text: Iterator[str], path: str, wanted: Columns) -> Iterator[Row]:
    """Rows below a header, whose most frequent delimiter separates the cells."""
    lines = (line for line in text if line.strip() and not line.startswith("sep="))  # Excel reads such a line
    header = next(lines, "")
    delimiter = max(DELIMITERS, key=header.count)
    csv.field_size_limit(MAX_CELL)
    rows = csv.reader(chain([header], text), delimiter=delimiter, skipinitialspace=True)
    names = list(map(str.strip, next(rows, [])))
    for cells in rows:
        if any(cells[len(names) :]):
            raise ValueError(
                f"{path}, line {rows.line_num}: more cells than the {len(names)} of the header; put double quotes "
                f"around texts with {delimiter!r}"
            )
        if cells:
            yield dict(zip(names, cells, strict=False))


def _tsv(text: IO[str], path: str, wanted: Columns) -> Iterator[Row]:
    """A table, if its first line names a wanted column; else question, tab, answer, as in MGSM."""
    first = text.readline()
    names = map(str.strip, first.replace('"', "").split("\t"))
    if not set(wanted or ()).isdisjoint(names):
        yield from _csv(chain([first], text), path, wanted)
        return
    for line in chain([first], text):
        question, tab, answer = line.rstrip("\r\n").rpartition("\t")
        if tab:
            yield {"question": question, "answer": answer}


def _parquet(stream: Any, path: str, wanted: Columns) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(stream) as file:
            names = file.schema_arrow.names
            for batch in file.iter_batches(columns=top_level(names, wanted), batch_size=4096):
                yield from rows_of(batch)
    except ArrowException as error:
        raise ValueError(f"{path} is no whole Parquet file ({first_line(error)}); copy it again") from error


def top_level(names: Sequence[str], wanted: Columns) -> list[str]:
    """Those of a table's columns that a wanted one is, or lies in."""
    if wanted is None:
        return list(names)
    starts = {column[:end] for column in wanted for end in _ends(column)}
    return [name for name in names if name in starts]


def _ends(column: str) -> list[int]:
    return [place for place, letter in enumerate(column) if letter == "."] + [len(column)]


def rows_of(batch: Any) -> Iterator[Row]:
    """The rows of an Arrow batch or table; a number in 32 bits is the shortest decimal for it."""
    import pyarrow as pa

    for place, column in enumerate(batch.schema):
        if column.type == pa.float32():
            exact = batch.column(place).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(place, column.name, exact)
    yield from batch.to_pylist()


TEXTS: Mapping[str, Callable[[Any, str, Columns], Iterator[Row]]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}
PARQUET = ".parquet"
ENDINGS = (*TEXTS, PARQUET)
