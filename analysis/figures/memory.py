"""Computes the figures of memory and of the blocks that trained."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from analysis.data.load import BLOCKS, REWARD, Run, finished_runs
from analysis.figures.accuracy import shown
from analysis.figures.data import Bars, Figure, Heat, Line, Lines
from analysis.stats.aggregate import Group, Summary
from analysis.stats.intervals import Floats

MOST_HEAT_MAPS = 6
PHASES = (  # of a step, in order
    *("generation", "reward", "scoring", "old_policy", "reference"),
    *("forward", "backward", "optimizer"),
)
REST = "other"  # the parameters outside the blocks
MEMORY_CAPTION = (
    "What held memory, each part at its own largest, means over seeds. The mark is the highest total "
    "of any phase of a step: parts need not be at their largest together, and a phase has "
    "short-lived tensors besides."
)
PHASES_CAPTION = "The highest total of all tensors in each phase of a training step, means over seeds."
BLOCKS_CAPTION = (
    "Share of each transformer block's parameters that trained, step by step, mean over seeds; the first block is 0."
)


def trained_blocks_figure(summaries: Sequence[Summary]) -> Figure | None:
    """Share of every block that trained at every step, a panel for each schedule; None without."""
    dynamic = [summary for summary in summaries if _scheduled(summary.group)]
    panels = {summary.name: _heat(summary.group) for summary in dynamic[:MOST_HEAT_MAPS]}
    if not panels:
        return None
    return Figure("trained_blocks", "What dynamic strategies trained", BLOCKS_CAPTION, dict(panels))


def _memory_panel(members: list[Summary]) -> Bars | None:
    drawn, sizes = _recorded(members, "memory_parts_bytes")
    peaks = tuple(summary.group.average("highest_peak_bytes") for summary in drawn)
    names = dict.fromkeys(chain.from_iterable(sizes))
    parts = {}
    for name in names:
        values = tuple(own[name] for own in sizes)
        if any(values):
            parts[name.replace("_", " ")] = values
    labels = tuple(map(attrgetter("label"), drawn))
    mark = "highest total of any phase"
    return Bars("memory", "bytes", labels, parts, peaks, mark) if parts else None


def _phase_panel(members: list[Summary]) -> Lines | None:
    drawn, sizes = _recorded(members, "peak_memory_bytes")
    found = dict.fromkeys(chain.from_iterable(sizes))
    ordered = sorted(found, key=lambda name: (*PHASES, name).index(name))
    x = tuple(map(float, range(len(ordered))))
    lines = []
    for summary, own in zip(drawn, sizes, strict=True):
        lines.append(Line(summary.label, x, tuple(map(own.__getitem__, ordered))))
    names = tuple(name.replace("_", " ") for name in ordered)
    return Lines("phase of a step", "peak memory", "bytes", tuple(lines), names) if ordered else None


def _recorded(members: list[Summary], attribute: str) -> tuple[list[Summary], list[dict[str, float]]]:
    """The shown ones that recorded a mapping of sizes, and each one's means over seeds."""
    drawn, sizes = [], []
    for summary in shown(members):
        average = _average(list(map(attrgetter(attribute), summary.group.results)))
        if average:
            drawn.append(summary)
            sizes.append(average)
    return drawn, sizes


def _average(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds of every name; a seed without it counts as 0."""
    totals: defaultdict[str, float] = defaultdict(float)
    for sizes in by_seed:
        for name, size in sizes.items():
            totals[name] += size
    for name in totals:
        totals[name] /= len(by_seed)
    return totals


def _scheduled(group: Group) -> list[Run]:
    """The finished runs that recorded which blocks trained."""
    runs = finished_runs(group.runs)
    return [run for run in runs if any(map(_is_block, run.series))]


def _is_block(name: str) -> bool:
    return name.startswith(BLOCKS)


def _heat(group: Group) -> Heat:
    runs = [run for run in _scheduled(group) if REWARD in run.series]
    keys = set(filter(_is_block, chain.from_iterable(map(attrgetter("series"), runs))))
    rest = keys & {BLOCKS + REST}
    rows = [*sorted(keys - rest, key=lambda key: int(key.removeprefix(BLOCKS))), *rest]
    steps = runs[0].series[REWARD].steps
    held = [list(map(partial(_held, run, steps), rows)) for run in runs]
    values = np.mean(held, axis=0)
    names = tuple(map(_block_name, rows))
    cells = tuple(map(tuple, values.tolist()))
    return Heat("training step", "block", tuple(steps.tolist()), names, cells)


def _block_name(key: str) -> str:
    name = key.removeprefix(BLOCKS)
    return "embeddings, head" if name == REST else str(int(name))


def _held(run: Run, steps: NDArray[np.int64], key: str) -> Floats:
    """The series' last value at or before every step, 0 before: only changes are recorded."""
    if key not in run.series:
        return np.zeros(len(steps))
    series = run.series[key]
    places = np.searchsorted(series.steps, steps, side="right")
    held: Floats = np.concatenate([[0.0], series.values])[places]
    return held


# Name, title, caption, and what makes a panel.
FIGURES = (
    ("memory", "Memory", MEMORY_CAPTION, _memory_panel),
    ("memory_by_phase", "Peak memory by phase", PHASES_CAPTION, _phase_panel),
)
