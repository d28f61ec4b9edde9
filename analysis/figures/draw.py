"""Draws the figures for papers with matplotlib: one function for each kind of data, nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, MultipleLocator, NullFormatter

from analysis.figures.data import Bars, Data, Figure, Heat, Intervals, Lines, Point, Scatter
from analysis.figures.label_placement import ABOVE_OR_BELOW, label_points, line_boxes, place, plain, point_boxes
from analysis.figures.style import GREY, LINES, MARKERS, PALETTE, Style, written
from analysis.stats.intervals import Estimate

PANEL_INCHES = (9.0, 5.0)
ROW_INCHES, MARGIN_INCHES = 0.36, 1.5  # of figures with a row for each configuration


def draw_figure(figure: Figure, style: Mapping[str, Style]) -> Canvas:
    """All panels of a figure, one below the other."""
    width = PANEL_INCHES[0]
    heights = [_height(data) for data in figure.panels.values()]
    canvas = Canvas(figsize=(width, sum(heights)), facecolor="white")
    FigureCanvasAgg(canvas)
    # The panels have their final places before anything is drawn: labels are placed by pixels.
    axes = canvas.subplots(len(heights), squeeze=False, height_ratios=heights).flat
    left = 0.22 if any(isinstance(data, Bars | Intervals) for data in figure.panels.values()) else 0.1
    gap = 1.2 / (sum(heights) / len(heights))
    canvas.subplots_adjust(left=left, right=0.97, bottom=0.6 / sum(heights), top=1 - 0.6 / sum(heights), hspace=gap)
    for ax, (name, data) in zip(axes, figure.panels.items(), strict=True):
        ax.set_title(plain(name), loc="left", fontsize=10)
        draw(ax, data, style)
    return canvas


def draw(ax: Axes, data: Data, style: Mapping[str, Style]) -> None:
    """One panel. Give the axes their final place in the figure first: labels are placed by pixels."""
    match data:
        case Scatter():
            draw_scatter(ax, data, style)
        case Lines():
            draw_lines(ax, data, style)
        case Bars():
            draw_bars(ax, data)
        case Heat():
            draw_heat(ax, data)
        case Intervals():
            draw_intervals(ax, data, style)


def draw_scatter(ax: Axes, data: Scatter, style: Mapping[str, Style]) -> None:
    """Costs (log) against accuracies with intervals both ways, the front, and the accuracy before training."""
    for point in data.points:
        _draw_point(ax, point, style.get(point.label))
    ax.set_xscale("log")
    ax.margins(x=0.14, y=0.16)
    lines, taken_text = [], []
    if data.before is not None:
        line, label = _draw_before(ax, data.before)
        lines.append(line)
        taken_text.append(label)
    lines.append(_draw_front(ax, data))
    _log_axis(ax, data.x_unit)
    _labels(ax, data.x_label, data.y_label)
    ax.yaxis.set_major_formatter(lambda value, _: written(value, data.y_unit))
    _plain_frame(ax)
    ax.autoscale_view()  # the boxes below are in pixels
    taken = [*(box for p in data.points for box in point_boxes(ax, p)), *(box for line in lines for box in line_boxes(line))]
    for label in taken_text:
        place(label, ABOVE_OR_BELOW, ax, taken)
        taken.append(label.get_window_extent())
    shown = [point for point in data.points if point.shown]
    if not label_points(ax, shown, style, taken):
        _legend(ax, len(shown) + 1)


def draw_lines(ax: Axes, data: Lines, style: Mapping[str, Style]) -> None:
    """A line for each configuration, with its interval as a band, or as bars where x are names; others in grey dashes."""
    others = [line.label for line in data.lines if line.label not in style]
    for index, line in enumerate(data.lines):
        look = style.get(line.label)
        dash = LINES[look.line] if look else LINES[1 + others.index(line.label) % (len(LINES) - 1)]
        color = PALETTE[look.color] if look else GREY
        marker = (MARKERS[look.marker] if look else "") if data.names else ""
        x = np.array(line.x) + (0.02 * (index - len(data.lines) / 2) if data.names else 0.0)  # so that bars stand apart
        ax.plot(x, line.y, color=color, linestyle=dash, marker=marker, linewidth=1.8, label=plain(line.label))
        if line.low is not None and line.high is not None:
            if data.names:
                ax.vlines(x, line.low, line.high, color=color, alpha=0.6, linewidth=1.2)
            else:
                ax.fill_between(x, line.low, line.high, color=color, alpha=0.13, linewidth=0)
    if data.names:
        ax.set_xticks(range(len(data.names)), [plain(name) for name in data.names])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half of a training step
    _labels(ax, data.x_label, data.y_label)
    _ticks(ax.yaxis, data.y_unit)
    ax.margins(x=0.05 if data.names else 0.01)
    _plain_frame(ax)
    _legend(ax, len(data.lines))


def draw_bars(ax: Axes, data: Bars) -> None:
    """A stacked bar for each label, the first on top, with the marks as short lines."""
    rows = np.arange(len(data.labels))
    start = np.zeros(len(data.labels))
    for index, (name, values) in enumerate(data.parts.items()):
        ax.barh(rows, values, left=start, height=0.7, color=PALETTE[index % len(PALETTE)], label=plain(name))
        start += np.array(values)
    if data.marks:
        ax.plot(data.marks, rows, "|", color=GREY, markersize=16, markeredgewidth=2, label=data.mark_label)
    _rows(ax, data.labels)
    _labels(ax, data.x_label, "")
    _ticks(ax.xaxis, data.x_unit)
    _plain_frame(ax)
    _legend(ax, len(data.parts) + 1)


def draw_heat(ax: Axes, data: Heat) -> None:
    """Rows from the top, columns from the first step on; white is 0, the darkest 1."""
    edges = (min(data.steps) - 0.5, max(data.steps) + 0.5, len(data.rows) - 0.5, -0.5)
    ax.imshow(data.values, aspect="auto", extent=edges, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_yticks(range(len(data.rows)), data.rows)
    _labels(ax, data.x_label, data.y_label)
    ax.spines[["top", "right"]].set_visible(False)


def draw_intervals(ax: Axes, data: Intervals, style: Mapping[str, Style]) -> None:
    """A row for each difference, filled where it is decided, and a line at no difference."""
    ax.axvline(0.0, color=GREY, linestyle="--", linewidth=1.2)
    for row, (label, value, decided) in enumerate(zip(data.labels, data.values, data.decided, strict=True)):
        color = PALETTE[style[label].color] if label in style else GREY
        face = color if decided else "white"
        ax.errorbar([value.value], [row], xerr=_error(value), fmt="o", color=color, markerfacecolor=face, capsize=3)
    _rows(ax, data.labels, 70)
    _labels(ax, data.x_label, "")
    _plain_frame(ax)


def _height(data: Data) -> float:
    if isinstance(data, Bars | Intervals):
        return MARGIN_INCHES + ROW_INCHES * len(data.labels)
    return MARGIN_INCHES + 0.25 * len(data.rows) if isinstance(data, Heat) else PANEL_INCHES[1]


def _draw_point(ax: Axes, point: Point, style: Style | None) -> None:
    """Large where it is shown by name; in grey where it has no look of its own, such as a trial of a search."""
    named = point.shown and style is not None
    ax.errorbar(
        [point.x.value],
        [point.y.value],
        xerr=_error(point.x),
        yerr=_error(point.y),
        fmt=MARKERS[style.marker] if style is not None else "o",
        color=PALETTE[style.color] if named and style is not None else GREY if point.shown else "#bbbbbb",
        markersize=8 if point.shown else 4,
        markeredgecolor="white",
        capsize=3 if point.shown else 0,
        elinewidth=1.4 if point.shown else 0.6,
        zorder=3 if point.shown else 1,
        label=plain(point.label) if named else None,
    )


def _error(estimate: Estimate) -> Any:
    """matplotlib's shape of an interval; rounding may put the value outside by a hair."""
    if estimate.low is None or estimate.high is None:
        return None
    return np.maximum([[estimate.value - estimate.low], [estimate.high - estimate.value]], 0.0)


def _draw_before(ax: Axes, before: tuple[float, float]) -> tuple[Line2D, Annotation]:
    """The accuracy before training: a dashed line, and a band where the configurations measured different ones."""
    low, high = before
    differ = f"{low:.1%}" != f"{high:.1%}"
    if differ:
        ax.axhspan(low, high, color=GREY, alpha=0.12, linewidth=0, zorder=0)
    line = ax.axhline((low + high) / 2, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    text = f"before training {low:.1%} to {high:.1%}" if differ else f"before training {low:.1%}"
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (0, 0)}
    return line, ax.annotate(text, (0.01, high), color=GREY, fontsize=9, **where)


def _draw_front(ax: Axes, data: Scatter) -> Line2D:
    """A step line from the cheapest configuration of the front to the right edge."""
    ax.autoscale_view()
    left, right = ax.get_xlim()
    x = np.repeat([*(cost for cost, _ in data.front), right], 2)[1:-1]
    y = np.repeat([value for _, value in data.front], 2)
    (line,) = ax.plot(x, y, color=GREY, linewidth=1.4, alpha=0.8, zorder=2, label="Pareto front")
    ax.set_xlim(left, right)
    return line


def _log_axis(ax: Axes, unit: str) -> None:
    left, right = ax.get_xlim()
    wide = right / left
    if wide < 2.5:  # a decade's 1, 2 and 5 may all lie outside
        ax.xaxis.set_major_locator(FixedLocator(np.linspace(left, right, 6)[1:-1].tolist()))
    else:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if wide < 1e4 else (1.0,), numticks=12))
    ax.xaxis.set_major_formatter(lambda value, _: written(value, unit))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(FixedLocator([]))


def _ticks(axis: Axis, unit: str) -> None:
    low, high = axis.get_view_interval()
    if unit == "bytes" and high > low:
        axis.set_major_locator(MultipleLocator(2.0 ** np.ceil(np.log2((high - low) / 6))))
    axis.set_major_formatter(lambda value, _: written(value, unit))


def _labels(ax: Axes, x_label: str, y_label: str) -> None:
    ax.set_xlabel(plain(x_label))
    ax.set_ylabel(plain(y_label))


def _rows(ax: Axes, labels: Sequence[str], most: int = 34) -> None:
    ax.set_yticks(range(len(labels)), [plain(label if len(label) <= most else f"{label[: most - 1]}…") for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)


def _plain_frame(ax: Axes) -> None:
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(ax: Axes, entries: int) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, ncols=-(-entries // 20))
