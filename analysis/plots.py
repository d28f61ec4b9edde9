"""Draws what was computed: trained parameters against accuracy, and reward over steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from analysis.aggregate import Curve, Summary
from analysis.pareto import pareto_front

# Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color), without its yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
LINES = ("-", "--", ":", "-.")
MOST_LABELS = 10  # beyond these a legend names the points
GREY = "#555555"
# Where a point's label may stand, nearest first: its place from the point in typographic points, and its side there.
BESIDE = [
    {
        "position": (x * distance, y * distance),
        "ha": ("right", "center", "left")[x + 1],
        "va": ("top", "center", "bottom")[y + 1],
    }
    for distance in (7, 12, 18)
    for x, y in ((1, 0), (-1, 0), (0, -1), (1, -1), (-1, -1), (0, 1), (1, 1), (-1, 1))
]
ABOVE_OR_BELOW = [{"position": (0, 3), "va": "bottom"}, {"position": (0, -4), "va": "top"}]


@dataclass(frozen=True)
class Style:
    """How one configuration looks in every plot."""

    color: str
    marker: str
    line: str


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label, which depends on nothing but the set of labels.

    Strategies differ in colour and their variants in line; where there are too many for that, all differ in colour first.
    """
    variants: dict[str, list[str]] = {}
    for name in sorted(set(labels)):
        variants.setdefault(name.partition(" ")[0], []).append(name)
    names = [name for own in variants.values() for name in own]
    if 1 < len(variants) <= len(PALETTE) and max(map(len, variants.values())) <= len(LINES):
        looks = [(color, line) for color, own in enumerate(variants.values()) for line in range(len(own))]
    else:
        looks = [(index % len(PALETTE), index // len(PALETTE) % len(LINES)) for index in range(len(names))]
    return {
        name: Style(PALETTE[color], MARKERS[index % len(MARKERS)], LINES[line])
        for index, (name, (color, line)) in enumerate(zip(names, looks, strict=True))
    }


def draw_pareto(ax: Axes, summaries: Sequence[Summary]) -> None:
    """Trained parameters (log) against accuracy with 95% intervals, the Pareto front and the accuracy before training.

    The summaries share one setting. Give the axes their final place in the figure first: labels are placed by pixels.
    """
    style = styles(summary.label for summary in summaries)
    for summary in summaries:
        _draw_point(ax, summary, style[summary.label])
    ax.set_xscale("log")
    ax.margins(x=0.14, y=0.16)
    before, before_label = _draw_before(ax, summaries)
    front = _draw_front(ax, summaries)
    _format_axes(ax)
    ax.autoscale_view()  # the boxes below are in pixels
    taken = [*(_point_box(ax, summary) for summary in summaries), *_line_boxes(before), *_line_boxes(front)]
    _place(before_label, ABOVE_OR_BELOW, ax, taken)
    taken.append(before_label.get_window_extent())
    if len(summaries) <= MOST_LABELS and _label_points(ax, summaries, style, taken):
        end = pareto_front(summaries)[-1].accuracy
        _label_line(ax, "Pareto\nfront", 1.0, end, xytext=(5, 0), va="center")
    else:
        _legend(ax, len(summaries) + 1)


def draw_reward_curves(ax: Axes, curves: Sequence[Curve]) -> None:
    """Mean training reward by step, with the 95% interval over seeds as a band where there are several seeds."""
    style = styles(curve.label for curve in curves)
    for curve in curves:
        look = style[curve.label]
        ax.plot(curve.steps, curve.mean, color=look.color, linestyle=look.line, linewidth=1.8, label=plain(curve.label))
        if curve.low is not None and curve.high is not None:
            ax.fill_between(curve.steps, curve.low, curve.high, color=look.color, alpha=0.13, linewidth=0)
    window = max((curve.window for curve in curves), default=1)
    ax.set_xlabel("training step")
    ax.set_ylabel("reward" if window == 1 else f"reward, mean of the last {window} steps")
    ax.margins(x=0.01)
    _plain_frame(ax)
    if curves:
        _legend(ax, len(curves))
    else:
        ax.text(0.5, 0.5, "no rewards recorded", transform=ax.transAxes, ha="center", va="center", color=GREY)


def _draw_point(ax: Axes, summary: Summary, style: Style) -> None:
    error = None
    if summary.accuracy_low is not None and summary.accuracy_high is not None:
        below, above = summary.accuracy - summary.accuracy_low, summary.accuracy_high - summary.accuracy
        error = np.maximum([[below], [above]], 0.0)  # with equal seeds the mean can lie a rounding error outside
    ax.errorbar(
        [summary.trainable_params],
        [summary.accuracy],
        yerr=error,
        fmt=style.marker,
        color=style.color,
        markersize=8,
        markeredgecolor="white",
        capsize=3,
        elinewidth=1.4,
        zorder=3,
        label=plain(summary.label),
    )


def _draw_before(ax: Axes, summaries: Sequence[Summary]) -> tuple[Line2D, Annotation]:
    """The accuracy before training: a dashed line, and a band where the configurations measured different ones."""
    before = [summary.accuracy_before for summary in summaries]
    low, high = min(before), max(before)
    differ = f"{low:.1%}" != f"{high:.1%}"
    if differ:
        ax.axhspan(low, high, color=GREY, alpha=0.12, linewidth=0, zorder=0)
    line = ax.axhline(sum(before) / len(before), color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    text = f"before training {low:.1%} to {high:.1%}" if differ else f"before training {low:.1%}"
    return line, _label_line(ax, text, 0.01, high)


def _label_line(ax: Axes, text: str, x: float, y: float, **place: Any) -> Annotation:
    """A label of the line at the height `y`, at `x` as a share of the width."""
    where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (0, 0), **place}
    return ax.annotate(text, (x, y), color=GREY, fontsize=9, **where)


def _draw_front(ax: Axes, summaries: Sequence[Summary]) -> Line2D:
    """A step line from the cheapest configuration of the front to the right edge."""
    front = pareto_front(summaries)
    ax.autoscale_view()
    left, right = ax.get_xlim()
    x = np.repeat([*(summary.trainable_params for summary in front), right], 2)[1:-1]
    y = np.repeat([summary.accuracy for summary in front], 2)
    (line,) = ax.plot(x, y, color=GREY, linewidth=1.4, alpha=0.8, zorder=2, label="Pareto front")
    ax.set_xlim(left, right)
    return line


def _format_axes(ax: Axes) -> None:
    ax.set_xlabel("trained parameters")
    ax.set_ylabel("held-out accuracy")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    count = EngFormatter(sep="")
    ax.xaxis.set_major_formatter(lambda value, _: count(value).replace("G", "B"))  # parameters are counted in billions
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    _plain_frame(ax)


def _plain_frame(ax: Axes) -> None:
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(ax: Axes, entries: int) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, ncols=-(-entries // 20))


def _label_points(ax: Axes, summaries: Sequence[Summary], style: dict[str, Style], taken: Sequence[Bbox]) -> bool:
    """Write every label beside its point, clear of all else; False, and none written, where one has no room."""
    written: list[Annotation] = []
    for summary in sorted(summaries, key=lambda summary: (-summary.accuracy, summary.trainable_params, summary.label)):
        label = ax.annotate(
            plain(summary.label),
            (summary.trainable_params, summary.accuracy),
            (0, 0),
            textcoords="offset points",
            fontsize=10,
            color=tuple(0.75 * part for part in to_rgb(style[summary.label].color)),  # darker: text is thin
        )
        written.append(label)
        if not _place(label, BESIDE, ax, [*taken, *(other.get_window_extent() for other in written[:-1])]):
            for label in written:
                label.remove()
            return False
    return True


def _place(label: Annotation, places: Sequence[dict[str, Any]], ax: Axes, taken: Sequence[Bbox]) -> bool:
    """Move a label to the first place inside the axes where it overlaps nothing taken; False where there is none."""
    frame = ax.get_window_extent()
    for place in places:
        label.set(**place)
        box = label.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return True
    return False


def _point_box(ax: Axes, summary: Summary) -> Bbox:
    """The box of a point with its error bar, in pixels."""
    low = summary.accuracy if summary.accuracy_low is None else summary.accuracy_low
    high = summary.accuracy if summary.accuracy_high is None else summary.accuracy_high
    corners = ax.transData.transform([(summary.trainable_params, low), (summary.trainable_params, high)])
    return Bbox(corners).padded(5 * ax.figure.dpi / 72)


def _line_boxes(line: Line2D) -> list[Bbox]:
    """A box around every part of a line, in pixels."""
    corners = line.get_transform().transform(line.get_xydata())
    return [Bbox([start, end]).padded(1) for start, end in pairwise(corners)]


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
