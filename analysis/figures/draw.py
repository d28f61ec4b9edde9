"""Draws figures as PNG and PDF with matplotlib, one function for each kind; computes nothing."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import matplotlib
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
from analysis.figures.numbers import written
from analysis.figures.style import GREY, LINES, MARKERS, PALETTE, Style
from analysis.stats.intervals import Estimate

PANEL_INCHES = (9.0, 5.0)
ROW_INCHES, MARGIN_INCHES = 0.36, 1.5  # of figures with a row for each configuration
PNG_DPI = 150
POINT = ("fmt", "color", "markersize", "capsize", "elinewidth", "zorder")
SHOWN_POINT: dict[str, Any] = dict(zip(POINT, ("o", GREY, 8, 3, 1.4, 3), strict=True))
HIDDEN_POINT: dict[str, Any] = dict(zip(POINT, ("o", "#bbbbbb", 4, 0, 0.6, 1), strict=True))


def draw_files(figures: Iterable[Figure], style: Mapping[str, Style]) -> dict[str, bytes]:
    """Every figure as PNG and PDF, by file name."""
    files = {}
    for figure in figures:
        canvas = draw_figure(figure, style)
        files[f"{figure.name}.png"] = _image(canvas, "png", None)
        # Without a date the same numbers give the same bytes.
        files[f"{figure.name}.pdf"] = _image(canvas, "pdf", {"CreationDate": None})
    return files


def draw_figure(figure: Figure, style: Mapping[str, Style]) -> Canvas:
    """All panels of a figure, one below the other."""
    panels = list(figure.panels.values())
    heights = list(map(_height, panels))
    total = sum(heights)
    canvas = Canvas(figsize=(PANEL_INCHES[0], total), facecolor="white")
    FigureCanvasAgg(canvas)
    # The panels have their final places before anything is drawn: labels are placed by pixels.
    axes = canvas.subplots(len(heights), squeeze=False, height_ratios=heights).flat
    left = 0.22 if any(isinstance(data, Bars | Intervals) for data in panels) else 0.1
    margin, gap = 0.6 / total, 1.2 / (total / len(heights))
    canvas.subplots_adjust(left=left, right=0.97, bottom=margin, top=1 - margin, hspace=gap)
    for ax, (name, data) in zip(axes, figure.panels.items(), strict=True):
        ax.set_title(plain(name), loc="left", fontsize=10)
        draw(ax, data, style)
    return canvas


def draw(ax: Axes, data: Data, style: Mapping[str, Style]) -> None:
    """Draw one panel; set the axes' final position first, since labels are placed by pixels."""
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
    """Costs (log) against accuracies with intervals, the front, and accuracy before training."""
    for point in data.points:
        _draw_point(ax, point, style.get(point.label))
    ax.set_xscale("log")
    ax.margins(x=0.14, y=0.16)
    before = [_draw_before(ax, data.before)] if data.before is not None else []
    lines = [*map(itemgetter(0), before), _draw_front(ax, data)]
    _log_axis(ax, data.x_unit)
    _labels(ax, data.x_label, data.y_label)
    ax.yaxis.set_major_formatter(_formatter(data.y_unit))
    _plain_frame(ax)
    ax.autoscale_view()  # the boxes below are in pixels
    taken = [*chain.from_iterable(map(partial(point_boxes, ax), data.points))]
    taken += chain.from_iterable(map(line_boxes, lines))
    for _, text in before:
        place(text, ABOVE_OR_BELOW, ax, taken)
        taken.append(text.get_window_extent())
    shown = list(filter(attrgetter("shown"), data.points))
    if not label_points(ax, shown, style, taken):
        _legend(ax, len(shown) + 1)


def draw_lines(ax: Axes, data: Lines, style: Mapping[str, Style]) -> None:
    """A line for each configuration with its interval as a band, or as bars where x are names."""
    others = 0
    for index, line in enumerate(data.lines):
        look = style.get(line.label)
        color, dash, marker = GREY, LINES[1 + others % (len(LINES) - 1)], ""
        if look is None:
            others += 1
        else:
            color, dash, marker = PALETTE[look.color], LINES[look.line], MARKERS[look.marker]
        x = np.array(line.x)
        if data.names:
            x = x + 0.02 * (index - len(data.lines) / 2)  # so that bars stand apart
        else:
            marker = ""
        ax.plot(x, line.y, color=color, linestyle=dash, marker=marker, linewidth=1.8, label=plain(line.label))
        if line.low is None or line.high is None:
            continue
        if data.names:
            ax.vlines(x, line.low, line.high, color=color, alpha=0.6, linewidth=1.2)
        else:
            ax.fill_between(x, line.low, line.high, color=color, alpha=0.13, linewidth=0)
    if data.names:
        ax.set_xticks(range(len(data.names)), list(map(plain, data.names)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # no half of a training step
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
    rows = zip(data.labels, data.values, data.decided, strict=True)
    for row, (label, value, decided) in enumerate(rows):
        color = PALETTE[style[label].color] if label in style else GREY
        face = color if decided else "white"
        looks: dict[str, Any] = {"color": color, "markerfacecolor": face, "capsize": 3}
        ax.errorbar([value.value], [row], xerr=_error(value), fmt="o", **looks)
    _rows(ax, data.labels, 70)
    _labels(ax, data.x_label, "")
    _plain_frame(ax)


def _image(canvas: Canvas, kind: str, metadata: dict[str, Any] | None) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text stays text
        canvas.savefig(stream, format=kind, dpi=PNG_DPI, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


def _height(data: Data) -> float:
    match data:
        case Bars() | Intervals():
            return MARGIN_INCHES + ROW_INCHES * len(data.labels)
        case Heat():
            return MARGIN_INCHES + 0.25 * len(data.rows)
        case _:
            return PANEL_INCHES[1]


def _formatter(unit: str) -> Callable[[float, Any], str]:
    return lambda value, _: written(value, unit)


def _draw_point(ax: Axes, point: Point, style: Style | None) -> None:
    """Large if it has a label; grey if it has no style, as a search's trial."""
    looks = SHOWN_POINT if point.shown else HIDDEN_POINT
    if style is not None:
        looks = looks | {"fmt": MARKERS[style.marker]}
    if point.shown and style is not None:
        looks = looks | {"color": PALETTE[style.color], "label": plain(point.label)}
    errors = {"xerr": _error(point.x), "yerr": _error(point.y)}
    ax.errorbar([point.x.value], [point.y.value], markeredgecolor="white", **errors, **looks)


def _error(estimate: Estimate) -> Any:
    """matplotlib's shape of an interval; rounding may put the value outside by a hair."""
    if estimate.low is None or estimate.high is None:
        return None
    return np.maximum([[estimate.value - estimate.low], [estimate.high - estimate.value]], 0.0)


def _draw_before(ax: Axes, before: tuple[float, float]) -> tuple[Line2D, Annotation]:
    """The accuracy before training: a dashed line, and a band where configurations differ."""
    low, high = before
    differ = f"{low:.1%}" != f"{high:.1%}"
    if differ:
        ax.axhspan(low, high, color=GREY, alpha=0.12, linewidth=0, zorder=0)
    line = ax.axhline((low + high) / 2, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    text = f"before training {low:.1%}"
    if differ:
        text += f" to {high:.1%}"
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    return line, ax.annotate(text, (0.01, high), (0, 0), color=GREY, fontsize=9, **where)


def _draw_front(ax: Axes, data: Scatter) -> Line2D:
    """A step line from the cheapest configuration of the front to the right edge."""
    ax.autoscale_view()
    left, right = ax.get_xlim()
    costs, values = np.reshape(data.front, (-1, 2)).T
    x, y = np.repeat([*costs, right], 2)[1:-1], np.repeat(values, 2)
    (line,) = ax.plot(x, y, color=GREY, linewidth=1.4, alpha=0.8, zorder=2, label="Pareto front")
    ax.set_xlim(left, right)
    return line


def _log_axis(ax: Axes, unit: str) -> None:
    left, right = ax.get_xlim()
    wide = right / left
    if wide < 2.5:  # a decade's 1, 2 and 5 may all lie outside
        ax.xaxis.set_major_locator(FixedLocator(np.linspace(left, right, 6)[1:-1].tolist()))
    else:
        subs = (1.0, 2.0, 5.0) if wide < 1e4 else (1.0,)
        ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.xaxis.set_major_formatter(_formatter(unit))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(FixedLocator([]))


def _ticks(axis: Axis, unit: str) -> None:
    low, high = axis.get_view_interval()
    if unit == "bytes" and high > low:
        axis.set_major_locator(MultipleLocator(2.0 ** np.ceil(np.log2((high - low) / 6))))
    axis.set_major_formatter(_formatter(unit))


def _labels(ax: Axes, x_label: str, y_label: str) -> None:
    ax.set_xlabel(plain(x_label))
    ax.set_ylabel(plain(y_label))


def _rows(ax: Axes, labels: Sequence[str], most: int = 34) -> None:
    ax.set_yticks(range(len(labels)), list(map(partial(_cut, most), labels)))
    ax.set_ylim(len(labels) - 0.4, -0.6)


def _cut(most: int, label: str) -> str:
    return plain(label if len(label) <= most else f"{label[: most - 1]}…")


def _plain_frame(ax: Axes) -> None:
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(ax: Axes, entries: int) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, ncols=-(-entries // 20))
