"""The figures of an Optuna study, on studies made here."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.data.load import ReportError
from analysis.figures.data import Bars, Figure, Line, Lines, Point, Scatter
from analysis.figures.draw import draw_figure
from analysis.figures.label_placement import point_boxes
from analysis.figures.search import figures_of, study_figures
from analysis.stats.intervals import Estimate

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def searched(objectives: int, trials: int = 12, **settings: object) -> optuna.Study:
    """A study whose first objective follows from x alone, to be maximized; the second is size, to be minimized."""
    directions = ["maximize", "minimize"][:objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0), **settings)  # type: ignore[arg-type]
    study.set_metric_names(["accuracy", "trained parameters"][:objectives])
    for _ in range(trials):
        trial = study.ask()
        x, size = trial.suggest_float("x", 0.0, 1.0), trial.suggest_int("size", 1, 1000)
        trial.suggest_float("idle", 0.0, 1.0)
        study.tell(trial, [x, float(size)][:objectives])
    return study


def test_two_objectives_give_the_studys_own_front() -> None:
    study = searched(2)
    front, importances = figures_of(study)
    [panel] = front.panels.values()
    assert isinstance(panel, Scatter)
    assert (panel.x_label, panel.y_label, len(panel.points)) == ("trained parameters", "accuracy", 12)
    assert {point.label for point in panel.points if point.on_front} == {f"trial {t.number}" for t in study.best_trials}
    assert panel.front == tuple(sorted((trial.values[1], trial.values[0]) for trial in study.best_trials))
    assert set(importances.panels) == {"accuracy", "trained parameters"}


def test_the_trials_of_the_front_are_drawn_by_name() -> None:
    study = searched(2)
    front, _ = figures_of(study)
    (axes,) = draw_figure(front, {}).axes
    assert {text.get_text() for text in axes.texts} == {f"trial {trial.number}" for trial in study.best_trials}


def test_the_parameter_that_decides_is_the_most_important_one() -> None:
    _, importances = figures_of(searched(1, trials=30))
    panel = importances.panels["accuracy"]
    assert isinstance(panel, Bars)
    assert panel.labels[0] == "x"
    assert panel.parts["importance"][0] > 0.5


def test_one_objective_gives_the_best_so_far() -> None:
    study = searched(1)
    panel = figures_of(study)[0].panels[""]
    assert isinstance(panel, Lines)
    best, each = panel.lines
    values = [trial.values[0] for trial in study.trials]
    assert each.y == pytest.approx(values)
    assert best.y == pytest.approx([max(values[: count + 1]) for count in range(12)])


def test_few_trials_say_nothing_of_importance_and_none_draw_nothing() -> None:
    assert [figure.name for figure in figures_of(searched(1, trials=2))] == ["search_history"]
    assert figures_of(searched(1, trials=0)) == []


def test_the_study_beside_a_sweep_is_found(tmp_path: Path) -> None:
    assert study_figures(tmp_path) == []
    searched(2, storage=JournalStorage(JournalFileBackend(str(tmp_path / "study.journal"))), study_name="s")
    assert [figure.name for figure in study_figures(tmp_path)] == ["search_front", "search_importances"]
    (tmp_path / "study.txt").write_text("")
    with pytest.raises(ReportError, match=r"study\.txt is no storage of a study; use \.journal, \.db"):
        study_figures(tmp_path)


def test_a_database_that_was_named_holds_the_study_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    searched(1, storage=url, study_name="s")
    searched(2, storage=url, study_name="another")
    assert [figure.name for figure in study_figures(tmp_path / "s", url)] == ["search_history", "search_importances"]
    with pytest.raises(ReportError, match="has no study 't'; valid: another, s"):
        study_figures(tmp_path / "t", url)
    with pytest.raises(ReportError, match="cannot be read") as raised:
        study_figures(tmp_path / "s", "postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(raised.value)


def test_objectives_have_words_and_units() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(["accuracy", "memory/total_peak_bytes"])
    study.tell(study.ask(), [0.5, 2.0**20])
    [figure] = figures_of(study)
    panel = figure.panels[""]
    assert isinstance(panel, Scatter)
    assert (panel.x_label, panel.x_unit, panel.y_label, panel.y_unit) == ("peak memory", "bytes", "accuracy", "share")


def test_a_proposal_that_was_told_again_is_drawn_once() -> None:
    study = searched(2, trials=5)
    again = study.ask()
    again.set_user_attr("repeat_of", 0)
    study.tell(again, study.trials[0].values)
    panel = figures_of(study)[0].panels[""]
    assert isinstance(panel, Scatter)
    assert len(panel.points) == 5


def test_what_breaks_a_constraint_is_never_the_best_so_far() -> None:
    study = optuna.create_study(direction="maximize")
    for value, violation in ((0.9, 1.0), (0.2, 0.0), (0.8, 2.0), (0.3, -1.0)):
        trial = study.ask()
        trial.set_constraint("bound", violation)
        study.tell(trial, value)
    panel = figures_of(study)[0].panels[""]
    assert isinstance(panel, Lines)
    best, each = panel.lines
    assert (best.x, best.y) == ((1.0, 2.0, 3.0), (0.2, 0.2, 0.3))
    assert each.y == (0.9, 0.2, 0.8, 0.3)


def test_objectives_that_both_go_up_have_no_step_line_of_a_front() -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    for values in ((0.1, 5.0), (0.5, 1.0)):
        study.tell(study.ask(), values)
    panel = figures_of(study)[0].panels[""]
    assert isinstance(panel, Scatter)
    assert panel.front == ()
    assert all(point.on_front for point in panel.points)


def test_an_objective_that_is_nothing_throughout_has_no_figure() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.tell(study.ask(), [0.5, 0.0])
    assert figures_of(study) == []


def test_lines_that_are_no_configurations_can_be_told_apart() -> None:
    lines = tuple(Line(name, (0.0, 1.0), (0.0, 1.0)) for name in ("best so far", "each trial"))
    drawn = draw_figure(Figure("f", "f", "", {"": Lines("trial", "accuracy", "share", lines)}), {}).axes[0].lines
    assert len({line.get_linestyle() for line in drawn}) == 2


def test_the_name_of_the_level_before_training_gives_way_to_intervals() -> None:
    crossing = Point("lora", Estimate(1000.0), Estimate(0.5, 0.1, 0.9), True, None, True)
    far = Point("full", Estimate(9000.0), Estimate(0.5, 0.45, 0.55), False, None, True)
    panel = Scatter("size", "count", "accuracy", "share", (crossing, far), ((1000.0, 0.5),), (0.3, 0.3))
    axes = draw_figure(Figure("f", "f", "", {"": panel}), {}).axes[0]
    (name,) = (text for text in axes.texts if text.get_text().startswith("before training"))
    assert not any(name.get_window_extent().overlaps(box) for box in point_boxes(axes, crossing))
