"""Plots for papers: everything is drawn, named, told apart, and no label covers another."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation

from analysis.figures.data import Bars, Figure, Heat, Intervals, Line, Lines, Point, Scatter
from analysis.figures.draw import draw_figure, draw_lines, draw_scatter
from analysis.figures.numbers import written
from analysis.figures.style import styles
from analysis.stats.intervals import Estimate
from analysis.stats.pareto import pareto_front
from tests.analysis_data import summaries_at


def empty_axes() -> Axes:
    canvas = Canvas(figsize=(9, 5))
    FigureCanvasAgg(canvas)
    return canvas.subplots()


def scatter_of(*places: tuple[float, float]) -> Scatter:
    """Points s0, s1, ... at these places, in one setting, as the report would draw them."""
    summaries = summaries_at(*((round(x), y) for x, y in places))
    front = pareto_front(summaries)
    points = [Point(s.label, s.costs["trainable_params"], Estimate(s.accuracy), s in front, None, True) for s in summaries]
    line = tuple((float(s.trainable_params), s.accuracy) for s in front)
    return Scatter("trained parameters", "count", "held-out accuracy", "share", tuple(points), line, (0.2, 0.2))


def drawn(data: Scatter) -> Axes:
    ax = empty_axes()
    draw_scatter(ax, data, styles(point.label for point in data.points))
    return ax


def test_the_front_is_a_step_line_and_the_accuracy_before_training_a_dashed_one() -> None:
    ax = drawn(scatter_of((10, 0.5), (100, 0.4), (1000, 0.7)))
    right = ax.get_xlim()[1]
    found = [(line.get_linestyle(), np.asarray(line.get_xydata()).tolist()) for line in ax.lines]
    assert ("-", [[10, 0.5], [1000, 0.5], [1000, 0.7], [right, 0.7]]) in found
    assert ("--", [[0, pytest.approx(0.2)], [1, pytest.approx(0.2)]]) in found
    assert ax.get_xscale() == "log"
    assert "before training 20.0%" in {text.get_text() for text in ax.texts}


crowds = st.lists(st.tuples(st.integers(10, 10**6), st.floats(0.0, 1.0)), min_size=1, max_size=14)


@given(crowds)
@settings(max_examples=15, deadline=None)
def test_labels_of_points_never_overlap_and_every_configuration_is_named(crowd: list[tuple[int, float]]) -> None:
    data = scatter_of(*crowd)
    ax = drawn(data)
    names = {point.label for point in data.points}
    boxes = [text.get_window_extent() for text in ax.texts if isinstance(text, Annotation) and text.get_text() in names]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    legend = ax.get_legend()
    if legend is None:
        assert len(boxes) == len(names)
    else:
        assert {text.get_text() for text in legend.get_texts()} == names | {"Pareto front"}


def test_a_label_does_not_stand_on_the_front_line() -> None:
    data = scatter_of((61_440, 0.602), (107_136, 0.586), (323_776, 0.554))
    ax = drawn(data)
    x, y = ax.transData.transform((61_440, 0.602))
    labels = [text for text in ax.texts if text.get_text() in {point.label for point in data.points}]
    assert len(labels) == 3
    for text in labels:
        box = text.get_window_extent()
        assert box.x1 < x or box.y1 < y or box.y0 > y, text.get_text()


def test_bands_are_drawn_where_there_are_several_seeds_only() -> None:
    ax = empty_axes()
    with_band = Line("full", (1.0, 2.0), (0.1, 0.2), (0.0, 0.1), (0.2, 0.3))
    data = Lines("step", "reward", "number", (with_band, Line("lora", (1.0, 2.0), (0.1, 0.2))))
    draw_lines(ax, data, styles(["full", "lora"]))
    assert (len(ax.lines), len(ax.collections)) == (2, 1)


def test_every_kind_of_figure_is_drawn_with_all_its_names() -> None:
    half = Estimate(0.5, 0.4, 0.6)
    kinds = {
        "bars": Bars("memory", "bytes", ("full", "lora"), {"weights": (2.0**20, 2.0**21)}, (2.0**21, 2.0**22), "peak"),
        "heat": Heat("step", "block", (1, 2), ("0", "1"), ((0.0, 1.0), (1.0, 0.5))),
        "gaps": Intervals("points", "points", ("full", "lora"), (half, half), (True, False)),
    }
    canvas = draw_figure(Figure("f", "t", "c", kinds), styles(["full", "lora"]))
    ticks = [[text.get_text() for text in ax.get_yticklabels()] for ax in canvas.axes]
    assert ticks == [["full", "lora"], ["0", "1"], ["full", "lora"]]
    assert [ax.get_title(loc="left") for ax in canvas.axes] == ["bars", "heat", "gaps"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4544, "share", "45.44%"),
        (107_136, "count", "107k"),
        (999_700, "count", "1M"),
        (494_000_000, "count", "494M"),
        (63 * 2**20, "bytes", "63 MiB"),
        (90, "seconds", "1.5 min"),
        (0.02, "seconds", "20 ms"),
        (0, "bytes", "0 B"),
        (-2.5, "points", "-2.5"),
    ],
)
def test_numbers_are_written_with_their_units(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_strategies_differ_in_colour_and_their_variants_in_line() -> None:
    looks = styles(["full beta=0", "full beta=1", "lora beta=0", "lora beta=1"])
    assert looks["full beta=0"].color == looks["full beta=1"].color != looks["lora beta=0"].color
    assert looks["full beta=0"].line == looks["lora beta=0"].line != looks["full beta=1"].line
    alone = styles(["full beta=0", "full beta=1"])
    assert alone["full beta=0"].color != alone["full beta=1"].color


@given(st.sets(st.tuples(st.sampled_from("abcdefghi"), st.integers(0, 4)), max_size=28))
@example({("a", k) for k in range(5)} | {("b", 0)})
@example({(strategy, k) for strategy in "abcdefgh" for k in (0, 1)})
def test_configurations_never_look_the_same(pairs: set[tuple[str, int]]) -> None:
    looks = styles(f"{strategy} k={k}" for strategy, k in pairs)
    assert len({(look.color, look.line) for look in looks.values()}) == len(pairs)
