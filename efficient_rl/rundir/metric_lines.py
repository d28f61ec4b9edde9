"""The lines of metrics.jsonl: one a step, however often resumed attempts repeat it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from efficient_rl.rundir.result import MISSING

METRICS_FILE = "metrics.jsonl"


def read_metrics(folder: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The complete lines from byte `start` on: `step`, `time` (Unix seconds) and `metrics`.

    Damaged lines are skipped; of each step and kind the first line counts. Every row carries `end`,
    the byte after it.
    """
    seen: set[tuple[int, str]] = set()
    try:
        stream = (folder / METRICS_FILE).open("rb")
    except MISSING:
        return
    with stream:
        stream.seek(start)
        end = start
        for line in stream:
            end += len(line)
            row = _parse(line) if line.endswith(b"\n") else None
            if row is not None and (key := (row["step"], kind(row["metrics"]))) not in seen:
                seen.add(key)
                yield {**row, "end": end}


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row as JSON, on a line of its own also where the line before was cut off."""
    line = json.dumps(row).encode()
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        stream.write(line + b"\n")


def kind(metrics: Mapping[str, float]) -> str:
    """A step has one line of each kind: what training logs, and what evaluation does."""
    return "eval" if any(name.startswith("eval/") for name in metrics) else "train"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    match row:
        case {"step": int(), "time": int() | float(), "metrics": dict(metrics)}:
            valid = all(isinstance(value, int | float) for value in metrics.values())
            return row if valid else None
    return None
