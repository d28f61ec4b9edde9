"""Finds a place for every label of a plot where it covers nothing else."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from analysis.figures.data import Point
from analysis.figures.style import GREY, PALETTE, Style

# Where a point's label may stand, nearest first: its place from the point in typographic points, and its side there.
BESIDE = [
    {
        "position": (x * distance, y * distance),
        "ha": ("right", "center", "left")[x + 1],
        "va": ("top", "center", "bottom")[y + 1],
    }
    for distance in (7, 12, 18, 26)
    for x, y in ((1, 0), (-1, 0), (0, -1), (1, -1), (-1, -1), (0, 1), (1, 1), (-1, 1))
]
# The same along a level line, from the left on.
ABOVE_OR_BELOW = [
    {"position": (right, up), "va": side} for right in range(0, 500, 50) for up, side in ((3, "bottom"), (-4, "top"))
]


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def label_points(ax: Axes, points: Sequence[Point], style: Mapping[str, Style], taken: Sequence[Bbox]) -> bool:
    """Write every label beside its point, clear of all else; False, and none written, where one has no room."""
    written_labels: list[Annotation] = []
    for point in sorted(points, key=lambda point: (-point.y.value, point.x.value, point.label)):
        chance = "" if point.front_probability in (None, 0.0) else f" {point.front_probability:.0%}"
        label = ax.annotate(
            plain(point.label) + chance,
            (point.x.value, point.y.value),
            (0, 0),
            textcoords="offset points",
            fontsize=10,
            color=_text_color(style.get(point.label)),
        )
        written_labels.append(label)
        if not place(label, BESIDE, ax, [*taken, *(other.get_window_extent() for other in written_labels[:-1])]):
            for label in written_labels:
                label.remove()
            return False
    return True


def _text_color(style: Style | None) -> tuple[float, ...]:
    """Darker than the marker's, because text is thin."""
    return tuple(0.75 * part for part in to_rgb(GREY if style is None else PALETTE[style.color]))


def place(label: Annotation, places: Sequence[dict[str, Any]], ax: Axes, taken: Sequence[Bbox]) -> bool:
    """Move a label to the first place inside the axes where it overlaps nothing taken; False where there is none."""
    frame = ax.get_window_extent()
    for place in places:
        label.set(**place)
        box = label.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return True
    return False


def point_boxes(ax: Axes, point: Point) -> list[Bbox]:
    """Boxes of a point's marker and its error bars, in pixels."""
    corner = ax.transData.transform([(point.x.value, point.y.value)])[0]
    boxes = [Bbox([corner, corner]).padded(5 * ax.figure.dpi / 72)]
    for across, estimate in ((True, point.x), (False, point.y)):
        if estimate.low is not None and estimate.high is not None:
            ends = [(end, point.y.value) if across else (point.x.value, end) for end in (estimate.low, estimate.high)]
            boxes.append(Bbox(ax.transData.transform(ends)).padded(1))
    return boxes


def line_boxes(line: Line2D) -> list[Bbox]:
    """A box around every part of a line, in pixels."""
    corners = line.get_transform().transform(line.get_xydata())
    return [Bbox([start, end]).padded(1) for start, end in pairwise(corners)]
