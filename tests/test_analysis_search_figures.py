"""The figures of a search, on studies made here."""

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.data.search import read_search
from analysis.figures.data import Bars, Figure, Line, Lines, Point, Scatter
from analysis.figures.draw import draw_figure
from analysis.figures.label_placement import point_boxes
from analysis.figures.search import trial_figures
from analysis.stats.intervals import Estimate
from efficient_rl.errors import ConfigError
from efficient_rl.search.summary import importances as importances_of
from efficient_rl.search.summary import summarize

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def figures_of(study: optuna.Study) -> list[Figure]:
    for trial in study.get_trials(deepcopy=False):
        trial.user_attrs.setdefault("config_hash", str(trial.number))
    return trial_figures(summarize(study, Path("runs")) | {"importances": importances_of(study)})


def search_figures(folder: Path, url: str | None = None) -> list[Figure]:
    content = read_search(folder, url)
    return [] if content is None else trial_figures(content)


def searched(objectives: int, trials: int = 12, **settings: object) -> optuna.Study:
    """A study whose first objective follows from x alone, to be maximized; the second is size, to be minimized."""
    directions = ["maximize", "minimize"][:objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0), **settings)  # type: ignore[arg-type]
    study.set_metric_names(["accuracy", "trained parameters"][:objectives])
    for _ in range(trials):
        trial = study.ask()
        trial.set_user_attr("config_hash", str(trial.number))
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


def test_a_search_that_goes_on_is_read_from_its_study_and_an_ended_one_from_what_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "sweeps" / "s"
    folder.mkdir(parents=True)
    assert search_figures(folder) == []
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = searched(2, storage=storage, study_name="s")
    assert [figure.name for figure in search_figures(folder)] == ["search_front", "search_importances"]
    ended = summarize(study, tmp_path) | {"importances": {"accuracy": {"x": 1.0}}}
    (folder / "search.json").write_text(json.dumps(ended | {"trials": ended["trials"][:5], "front": [0]}))
    front, importances = search_figures(folder)
    assert isinstance(panel := front.panels[""], Scatter)
    assert len(panel.points) == 5
    assert isinstance(shares := importances.panels["accuracy"], Bars)
    assert shares.parts == {"importance": (1.0,)}
    del ended["importances"]  # as searches wrote it once
    (folder / "search.json").write_text(json.dumps(ended))
    assert [figure.name for figure in search_figures(folder)] == ["search_front", "search_importances"]


def test_a_database_that_was_named_holds_the_study_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    searched(1, storage=url, study_name="s")
    searched(2, storage=url, study_name="another")
    assert [figure.name for figure in search_figures(tmp_path / "s", url)] == ["search_history", "search_importances"]
    with pytest.raises(ConfigError, match="has no study 't'; valid: another, s"):
        search_figures(tmp_path / "t", url)
    with pytest.raises(ConfigError, match="cannot be opened") as raised:
        search_figures(tmp_path / "s", "postgresql://me:secret@127.0.0.1:1/none")
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
    study.set_metric_names(["accuracy"])
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
    study.set_metric_names(["accuracy", "reward"])
    for values in ((0.1, 5.0), (0.5, 1.0)):
        study.tell(study.ask(), values)
    panel = figures_of(study)[0].panels[""]
    assert isinstance(panel, Scatter)
    assert panel.front == ()
    assert all(point.on_front for point in panel.points)


def test_an_objective_that_is_nothing_throughout_has_no_figure() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(["accuracy", "tokens"])
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
