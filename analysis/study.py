"""Computes the figures of an Optuna study: what its trials reached, and which parameters mattered."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figure_data import Bars, Data, Figure, Line, Lines, Point, Scatter
from analysis.load import ReportError
from analysis.statistics import Estimate

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL, DATABASES = ".journal", (".db", ".sqlite", ".sqlite3")
FEWEST_TRIALS = 4  # to say which parameters mattered


def study_figures(folder: Path) -> list[Figure]:
    """The figures of the study whose storage lies in the folder as `study.*`; none where there is no such file."""
    return [figure for path in sorted(folder.glob("study.*")) for study in _studies(path) for figure in figures_of(study)]


def figures_of(study: "Study") -> list[Figure]:
    """Its objectives against each other with the front, or the best so far; and the importances of its parameters."""
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not trials:
        return []
    names = study.metric_names or [f"objective {index}" for index in range(len(study.directions))]
    figures = [_front(study, trials, names) if len(names) > 1 else _best_so_far(study, trials, names[0])]
    importances = _importances(study, trials, names)
    return [*figures, importances] if importances is not None else figures


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


def _front(study: "Study", trials: "Sequence[FrozenTrial]", names: Sequence[str]) -> Figure:
    """Every further objective against the first one, with the study's own front."""
    best = {trial.number for trial in study.best_trials}
    panels: dict[str, Data] = {}
    for index in range(1, len(names)):
        ordered = sorted(
            (trial for trial in trials if trial.number in best), key=lambda trial: (trial.values[index], trial.values[0])
        )
        front = tuple((float(trial.values[index]), float(trial.values[0])) for trial in ordered) if len(names) == 2 else ()
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
            panels["" if len(names) == 2 else names[index]] = Scatter(
                names[index], "number", names[0], "number", points, front
            )
    caption = f"All {len(trials)} finished trials of the search; named are those that no other beats in every objective."
    return Figure("search_front", "What the search found", caption, panels)


def _best_so_far(study: "Study", trials: "Sequence[FrozenTrial]", name: str) -> Figure:
    highest = study.direction.name == "MAXIMIZE"
    values, best = [], []
    for trial in sorted(trials, key=lambda trial: trial.number):
        values.append(float(trial.values[0]))
        best.append(max(values) if highest else min(values))
    numbers = tuple(float(number) for number in sorted(trial.number for trial in trials))
    lines = (Line("best so far", numbers, tuple(best)), Line("each trial", numbers, tuple(values)))
    caption = f"The objective of all {len(trials)} finished trials of the search, and the best up to each."
    return Figure("search_history", "How the search went", caption, {"": Lines("trial", name, "number", lines)})


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
            panels[name] = Bars("importance", "share", tuple(found), {"importance": tuple(map(float, found.values()))})
    caption = (
        "Which share of an objective's variance each parameter explains, by fANOVA, over the parameters that all trials "
        "have. It says nothing about parameters that were not searched, and little with few trials."
    )
    return Figure("search_importances", "Which parameters mattered", caption, panels) if panels else None


def _value(index: int) -> "Callable[[FrozenTrial], float]":
    return lambda trial: float(trial.values[index])
