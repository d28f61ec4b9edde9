"""The figures of an Optuna study, on studies made here."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.figure_data import Bars, Lines, Scatter
from analysis.load import ReportError
from analysis.plots import draw_figure
from analysis.study import figures_of, study_figures

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
