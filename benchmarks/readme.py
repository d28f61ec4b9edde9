"""Fills the README's tables from the benchmarks' results: `python -m benchmarks.readme`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def filled(text: str, results: Path) -> str:
    """The README's text with the tables that the result files give."""
    for name, table in {"learning": _learning(results), "figures": _figures(results)}.items():
        text = re.sub(
            rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)",
            lambda match, t=table: match[1] + t + match[2],
            text,
            flags=re.DOTALL,
        )
    return text


def _learning(results: Path) -> str:
    measured = _read(results, "learning")
    header = "| strategy | trained parameters | accuracy before | after [95% interval] | gain | training | peak memory |"
    rows = [header, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in measured["strategies"]:
        low, high = row["accuracy_interval"]
        rows.append(
            f"| {row['label']} | {row['trainable_params']:,} | {row['accuracy_before']:.1%} | {row['accuracy']:.1%} "
            f"[{low:.1%}, {high:.1%}] | {row['gain_points']:+.1f} points | {row['train_seconds']:.0f} s | "
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB |"
        )
    return "\n".join(rows) + "\n"


def _figures(results: Path) -> str:
    return "".join(f"| {what} | {value} |\n" for what, value in (*_demo(results), *_launching(results), *_planning(results)))


def _demo(results: Path) -> Sequence[tuple[str, str]]:
    measured = _read(results, "demo")
    return [
        ("`make demo` once installed, to the finished report", _seconds(measured["demo_seconds"])),
        ("tracking, share of a nano run's time", f"{measured['tracking_share']['median']:.1%}"),
    ]


def _launching(results: Path) -> Sequence[tuple[str, str]]:
    return []


def _planning(results: Path) -> Sequence[tuple[str, str]]:
    return []


def _seconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2g} s ({spread['min']:.2g} to {spread['max']:.2g})"


def _read(results: Path, name: str) -> Any:
    return json.loads((results / f"{name}.json").read_text())


def main() -> None:
    """Rewrite README.md in place."""
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text(), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()
