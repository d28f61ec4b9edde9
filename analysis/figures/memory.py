"""Computes the figures of what happened inside the runs: what held memory, and which blocks trained."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.data.load import BLOCKS, REWARD, Run
from analysis.figures.accuracy import by_setting, left_out_text, shown_labels
from analysis.figures.data import Bars, Data, Figure, Heat, Line, Lines
from analysis.stats.aggregate import Group, Summary
from analysis.stats.intervals import Floats

MOST_HEAT_MAPS = 6
PHASES = ("generation", "reward", "scoring", "old_policy", "reference", "forward", "backward", "optimizer")  # of a step
REST = "other"  # the parameters outside the blocks


def memory_figure(summaries: Sequence[Summary], groups: Sequence[Group]) -> Figure | None:
    """What held memory, stacked, and the highest measured total; None where runs did not record it."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        own = {group.label: group.results for group in groups if group.setting == setting}
        labels = [label for label in shown_labels(members) if any(result.parts_bytes for result in own[label])]
        names = dict.fromkeys(part for label in labels for result in own[label] for part in result.parts_bytes)
        parts = {
            part: tuple(_average([r.parts_bytes.get(part, 0) for r in own[label]]) for label in labels) for part in names
        }
        kept = {part.replace("_", " "): sizes for part, sizes in parts.items() if any(sizes)}
        peaks = tuple(_average([r.peak_memory_bytes for r in own[label]]) for label in labels)
        if kept:
            panels[setting] = Bars("memory", "bytes", tuple(labels), kept, peaks, "highest total of any phase")
    caption = (
        "What held memory, each part at its own largest, means over seeds. The mark is the highest total of any phase of a "
        "step: parts need not be at their largest together, and a phase has short-lived tensors besides."
    )
    return Figure("memory", "Memory", caption + left_out_text(summaries), panels) if panels else None


def phase_figure(summaries: Sequence[Summary], groups: Sequence[Group]) -> Figure | None:
    """Peak memory of every phase of a step; None where runs did not record it."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        own = {group.label: group.results for group in groups if group.setting == setting}
        drawn = [label for label in shown_labels(members) if any(result.phase_peaks_bytes for result in own[label])]
        phases = list(dict.fromkeys(phase for label in drawn for r in own[label] for phase in r.phase_peaks_bytes))
        ordered = sorted(phases, key=lambda phase: PHASES.index(phase) if phase in PHASES else len(PHASES))
        if ordered:
            lines = [
                Line(
                    label,
                    tuple(float(place) for place in range(len(ordered))),
                    tuple(_average([r.phase_peaks_bytes.get(phase, 0) for r in own[label]]) for phase in ordered),
                )
                for label in drawn
            ]
            names = tuple(phase.replace("_", " ") for phase in ordered)
            panels[setting] = Lines("phase of a step", "peak memory", "bytes", tuple(lines), names)
    caption = "The highest total of all tensors in each phase of a training step, means over seeds."
    return Figure("memory_by_phase", "Peak memory by phase", caption + left_out_text(summaries), panels) if panels else None


def trained_blocks_figure(groups: Sequence[Group], summaries: Sequence[Summary]) -> Figure | None:
    """Which share of every block trained at every step, a panel for each configuration with a schedule; None without."""
    ranked = [(summary.label, summary.setting) for summary in summaries]
    dynamic = [g for g in groups if g.results and any(key.startswith(BLOCKS) for run in g.runs for key in run.series)]
    dynamic = sorted(dynamic, key=lambda group: ranked.index((group.label, group.setting)))[:MOST_HEAT_MAPS]
    panels = {f"{g.label}, {g.setting}" if g.setting else g.label: _heat(g) for g in dynamic}
    caption = (
        "Share of each transformer block's parameters that trained, step by step, mean over seeds; the first block is 0."
    )
    return Figure("trained_blocks", "What dynamic strategies trained", caption, dict(panels)) if panels else None


def _heat(group: Group) -> Heat:
    runs = [run for run in group.runs if run.result is not None and REWARD in run.series]
    runs = [run for run in runs if any(key.startswith(BLOCKS) for key in run.series)]
    keys = {key.removeprefix(BLOCKS) for run in runs for key in run.series if key.startswith(BLOCKS)}
    rows = [*sorted(keys - {REST}, key=int), *([REST] if REST in keys else [])]
    steps = runs[0].series[REWARD].steps
    values = np.mean([[_held(run, BLOCKS + row, steps) for row in rows] for run in runs], axis=0)
    names = tuple("embeddings, head" if row == REST else str(int(row)) for row in rows)
    return Heat("training step", "block", tuple(map(int, steps)), names, tuple(tuple(map(float, row)) for row in values))


def _held(run: Run, key: str, steps: NDArray[np.int64]) -> Floats:
    """The series' last value at or before every step, 0 before the first and without one: only changes are recorded."""
    if key not in run.series:
        return np.zeros(len(steps))
    series = run.series[key]
    places = np.searchsorted(series.steps, steps, side="right")
    held: Floats = np.concatenate([[0.0], series.values])[places]
    return held


def _average(values: Sequence[float]) -> float:
    return float(np.mean(values))
