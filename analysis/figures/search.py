"""Computes the figures of an Optuna study: what its trials reached, and which parameters mattered."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.data.load import ReportError, suggest
from analysis.figures.data import Bars, Data, Figure, Line, Lines, Point, Scatter, metric_words
from analysis.stats.intervals import Estimate

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL, DATABASES = ".journal", (".db", ".sqlite", ".sqlite3")
REPEAT = "repeat_of"  # marks a proposal that was tried before: it was told the same again and is no further measurement
FEWEST_TRIALS = 4  # to say which parameters mattered


def study_figures(folder: Path, url: str | None = None) -> list[Figure]:
    """The figures of the study whose storage lies in the folder as `study.*`; none where there is no such file.

    With a `url`, of the study of the folder's name in that database; ReportError where it has none.
    """
    if url is not None:
        studies = _in_database(url, folder.name)
    else:
        studies = [study for path in sorted(folder.glob("study.*")) for study in _studies(path)]
    return [figure for study in studies for figure in figures_of(study)]


def figures_of(study: "Study") -> list[Figure]:
    """Its objectives against each other with the front, or the best so far; and the importances of its parameters."""
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE" and REPEAT not in trial.user_attrs]
    if not trials:
        return []
    names = study.metric_names or [f"objective {index}" for index in range(len(study.directions))]
    found = _front(study, trials, names) if len(names) > 1 else _best_so_far(study, trials, names[0])
    return [figure for figure in (found, _importances(study, trials, names)) if figure is not None and figure.panels]


def _studies(path: Path) -> "list[Study]":
    import optuna
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if path.suffix == JOURNAL:
        storage: BaseStorage = JournalStorage(JournalFileBackend(str(path)))
    elif path.suffix in DATABASES:
        storage = RDBStorage(f"sqlite:///{path.resolve()}")
    else:
        raise ReportError(f"{path} is no storage of a study; use {', '.join((JOURNAL, *DATABASES))}")
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def _in_database(url: str, name: str) -> "list[Study]":
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = RDBStorage(url)
        names = optuna.get_all_study_names(storage)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise ReportError(
            f"study=... cannot be read ({type(error).__name__}); give it the search.storage of the search"
        ) from error
    if name not in names:
        raise ReportError(f"study=... has no study {name!r}; {suggest(name, names)}")
    return [optuna.load_study(study_name=name, storage=storage)]


def _front(study: "Study", trials: "Sequence[FrozenTrial]", names: Sequence[str]) -> Figure:
    """Every further objective against the first one, with the study's own front."""
    best = {trial.number for trial in study.best_trials}
    stepped = [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]  # as the step line goes
    y_label, y_unit = metric_words(names[0])
    panels: dict[str, Data] = {}
    for index in range(1, len(names)):
        ordered = sorted(
            (trial for trial in trials if trial.number in best and trial.values[index] > 0),
            key=lambda trial: (trial.values[index], trial.values[0]),
        )
        front = tuple((float(trial.values[index]), float(trial.values[0])) for trial in ordered) if stepped else ()
        points = tuple(
            Point(
                f"trial {trial.number}",
                Estimate(float(trial.values[index])),
                Estimate(float(trial.values[0])),
                trial.number in best,
                None,
                trial.number in best,
            )
            for trial in trials
            if trial.values[index] > 0  # the axis is logarithmic
        )
        if points:
            x_label, x_unit = metric_words(names[index])
            panels["" if len(names) == 2 else x_label] = Scatter(x_label, x_unit, y_label, y_unit, points, front)
    caption = f"All {len(trials)} finished trials of the search; named are those that no other beats in every objective."
    return Figure("search_front", "What the search found", caption, panels)


def _best_so_far(study: "Study", trials: "Sequence[FrozenTrial]", name: str) -> Figure:
    pick = max if study.direction.name == "MAXIMIZE" else min
    kept: list[float] = []
    each: dict[float, float] = {}
    best: dict[float, float] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        number, value = float(trial.number), float(trial.values[0])
        each[number] = value
        if all(violation <= 0 for violation in trial.constraints.values()):  # others are never best
            kept.append(value)
        if kept:
            best[number] = pick(kept)
    lines = tuple(
        Line(label, tuple(found), tuple(found.values()))
        for label, found in (("best so far", best), ("each trial", each))
        if found
    )
    caption = f"The objective of all {len(trials)} finished trials of the search, and the best up to each."
    title, unit = metric_words(name)
    return Figure("search_history", "How the search went", caption, {"": Lines("trial", title, unit, lines)})


def _importances(study: "Study", trials: "Sequence[FrozenTrial]", names: Sequence[str]) -> Figure | None:
    """Importances by fANOVA (Hutter et al. 2014), a panel for each objective; None where nothing varied."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    common = set.intersection(*(set(trial.params) for trial in trials))
    varied = sorted(name for name in common if len({str(trial.params[name]) for trial in trials}) > 1)
    if len(trials) < FEWEST_TRIALS or not varied:
        return None
    panels: dict[str, Data] = {}
    for index, name in enumerate(names):
        if len({trial.values[index] for trial in trials}) > 1:
            forest = FanovaImportanceEvaluator(seed=0)
            found = get_param_importances(study, evaluator=forest, params=varied, target=_value(index))
            panels[metric_words(name)[0]] = Bars(
                "importance", "share", tuple(found), {"importance": tuple(map(float, found.values()))}
            )
    caption = (
        "Which share of an objective's variance each parameter explains, by fANOVA, over the parameters that all trials "
        "have. It says nothing about parameters that were not searched, and little with few trials."
    )
    return Figure("search_importances", "Which parameters mattered", caption, panels) if panels else None


def _value(index: int) -> "Callable[[FrozenTrial], float]":
    return lambda trial: float(trial.values[index])
