"""A table as data: what each cell shows, and what it is sorted by."""

from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

Cell: TypeAlias = tuple[str, float | str]  # what is shown, and what it is sorted by


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; the marked rows stand out."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    caption: str = ""
    marked: frozenset[int] = frozenset()

    def texts(self) -> list[list[str]]:
        """What is shown of each row."""
        return [list(map(itemgetter(0), row)) for row in self.rows]
