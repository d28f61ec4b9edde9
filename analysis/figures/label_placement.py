"""Places every label of a plot where it overlaps nothing else."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from analysis.figures.data import Point
from analysis.figures.style import GREY, PALETTE, Style

DISTANCES = (7, 12, 18, 26)  # typographic points
SIDES = ((1, 0), (-1, 0), (0, -1), (1, -1), (-1, -1), (0, 1), (1, 1), (-1, 1))
ACROSS, UPRIGHT = ("center", "left", "right"), ("center", "bottom", "top")  # by 0, 1 and -1


def _beside(place: tuple[int, tuple[int, int]]) -> dict[str, Any]:
    distance, (x, y) = place
    return {"position": (x * distance, y * distance), "ha": ACROSS[x], "va": UPRIGHT[y]}


def _along(place: tuple[int, tuple[int, str]]) -> dict[str, Any]:
    right, (up, side) = place
    return {"position": (right, up), "va": side}


# Where a point's label may stand, nearest first, and where that of a level line, from the left on.
BESIDE = list(map(_beside, product(DISTANCES, SIDES)))
ABOVE_OR_BELOW = list(map(_along, product(range(0, 500, 50), ((3, "bottom"), (-4, "top")))))


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def label_points(ax: Axes, points: Sequence[Point], style: Mapping[str, Style], taken: Sequence[Bbox]) -> bool:
    """Write a label beside every point without overlaps; False, and none written, if one fails."""
    written_labels: list[Annotation] = []
    occupied = list(taken)
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
        if not place(label, BESIDE, ax, occupied):
            for label in written_labels:
                label.remove()
            return False
        occupied.append(label.get_window_extent())
    return True


def _text_color(style: Style | None) -> tuple[float, ...]:
    """Darker than the marker's, because text is thin."""
    color = GREY if style is None else PALETTE[style.color]
    return tuple(0.75 * np.array(to_rgb(color)))


def place(label: Annotation, places: Sequence[dict[str, Any]], ax: Axes, taken: Sequence[Bbox]) -> bool:
    """Move a label to the first free place inside the axes; False if there is none."""
    frame = ax.get_window_extent()
    for place in places:
        label.set(**place)
        box = label.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(map(box.overlaps, taken)):
            return True
    return False


def point_boxes(ax: Axes, point: Point) -> list[Bbox]:
    """Boxes of a point's marker and its error bars, in pixels."""
    corner = ax.transData.transform([(point.x.value, point.y.value)])[0]
    boxes = [Bbox([corner, corner]).padded(5 * ax.figure.dpi / 72)]
    if point.x.interval is not None:
        ends = list(zip(point.x.interval, [point.y.value] * 2, strict=True))
        boxes.append(Bbox(ax.transData.transform(ends)).padded(1))
    if point.y.interval is not None:
        ends = list(zip([point.x.value] * 2, point.y.interval, strict=True))
        boxes.append(Bbox(ax.transData.transform(ends)).padded(1))
    return boxes


def line_boxes(line: Line2D) -> list[Bbox]:
    """A box around every part of a line, in pixels."""
    corners = line.get_transform().transform(line.get_xydata())
    return [Bbox([start, end]).padded(1) for start, end in pairwise(corners)]
