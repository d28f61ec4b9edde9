"""Opens the Optuna study of a search: one controller at a time, crash-safe, one fixed question."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from efficient_rl.errors import ConfigError, did_you_mean

MakeSampler = Callable[..., BaseSampler]  # takes `seed`


@contextmanager
def opened(
    folder: Path,
    storage: str | None,
    name: str,
    objectives: Mapping[str, str],
    question: Sequence[str],
    pruner: BasePruner | None,
) -> Iterator[Study]:
    """The study of a search, made if it is new, for this process alone.

    `question` are the overrides that say what is searched; ConfigError where the study was asked
    another one, or where another process works on it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; choose an output you may write") from error
    try:
        with FileLock(folder / "search.lock", timeout=0), _quiet():
            study = optuna.create_study(
                storage=_storage(folder / "study.journal", storage),
                study_name=name,
                directions=[StudyDirection[direction.upper()] for direction in objectives.values()],
                load_if_exists=True,
                pruner=pruner or NopPruner(),
            )
            _check_question(study, name, [f"{direction} {figure}" for figure, direction in objectives.items()], question)
            if study.metric_names is None:
                study.set_metric_names(list(objectives))
            yield study
    except Timeout as error:
        raise ConfigError(f"another process does the search {name}; wait for it, or stop it") from error


def read_study(folder: Path, url: str | None) -> Study | None:
    """The study of a search, possibly still running, for reading; None if there is none yet.

    It lies in the folder's journal, or under the folder's name in the database `url`: ConfigError
    where that cannot be opened or does not know it.
    """
    journal = folder / "study.journal"
    if url is None and not journal.exists():
        return None
    with _quiet():
        storage = JournalStorage(JournalFileBackend(str(journal))) if url is None else _database(url)
        names = optuna.get_all_study_names(storage)
        if url is not None and folder.name not in names:
            raise ConfigError(f"the database has no study {folder.name!r}; {did_you_mean(folder.name, names)}")
        return optuna.load_study(study_name=folder.name, storage=storage) if folder.name in names else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about what Optuna calls experimental: what we use of it is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _storage(journal: Path, url: str | None) -> BaseStorage:
    if url is not None:
        return _database(url)
    _cut_torn_line(journal)
    return JournalStorage(JournalFileBackend(str(journal)))


def _database(url: str) -> BaseStorage:
    """The storage at the URL; ConfigError, without the URL (passwords), if it does not open."""
    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        told = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(
            f"search.storage cannot be opened: {told}; use sqlite:///FILE, a database that answers, or null"
        ) from error


def _cut_torn_line(journal: Path) -> None:
    """Remove an incomplete last line, left by a kill: Optuna reads nothing after it."""
    try:
        with journal.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
    except FileNotFoundError:
        return


def _check_question(study: Study, name: str, objectives: list[str], question: Sequence[str]) -> None:
    asked = {"objectives": objectives, "question": sorted(question)}
    for key, value in asked.items():
        before = study.user_attrs.get(key)
        if before is None:
            study.set_user_attr(key, value)
        elif before != value:
            differ = sorted({*map(str, before)} ^ {*map(str, value)}) or value
            raise ConfigError(f"the search {name} had other {key} ({', '.join(differ)} differ); give this one name=...")


def check_sampler(make: Any) -> None:
    """Raise a ConfigError unless it makes a sampler from a seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not callable(make):
        raise ConfigError(f"search.sampler={make!r} must name a sampler of Optuna, with _partial_: true")
    try:
        with _quiet():
            _try(optuna.create_study(sampler=make(seed=0)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"search.sampler must have _partial_: true, take a seed and its own arguments: {error}") from error


def check_pruner(pruner: Any) -> None:
    """ConfigError unless the pruner can judge a trial: Optuna reads some settings only then."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"search.pruner={pruner!r} must be null or a pruner of Optuna, e.g. search=hyperband")
    try:
        with _quiet():
            _try(optuna.create_study(pruner=deepcopy(pruner)))  # some learn from the trials that they see
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"search.pruner cannot judge a trial with its settings: {error}") from error


def _try(study: Study) -> None:
    """Ask and tell a few trials in memory."""
    for step in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.report(0.5, step + 1)
        trial.should_prune()
        study.tell(trial, 0.5)


def seeded(make: MakeSampler, seed: int, study: Study) -> BaseSampler:
    """A sampler seeded by seed and trial number, so that a resumed search repeats no draw."""
    number = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))
    draw = random.Random(f"{seed} {number}").getrandbits(32)
    return make(seed=draw)


def open_trials(study: Study) -> list[optuna.Trial]:
    """Unfinished trials of earlier processes as live trials: their proposals are kept."""
    frozen = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [optuna.Trial(study, trial._trial_id) for trial in frozen]


def concluded(study: Study) -> list[FrozenTrial]:
    """The trials that were told, in the order of their numbers."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))


def enqueue(study: Study, fixed: Sequence[Mapping[str, Any]]) -> None:
    """Have the study propose these first, each once however often this is called."""
    for params in fixed:
        study.enqueue_trial(dict(params), skip_if_exists=True)
