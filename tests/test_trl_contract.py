"""The installed TRL is the one that the trainer was written against, and the table of what it relies on is complete."""

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pkgutil import resolve_name

import pytest
import trl

from efficient_rl.training.run_trainer import RunTrainer
from efficient_rl.training.trl_contract import CONTRACT, Entry, assigned
from tests.conftest import ROOT

LIBRARIES = ("trl", "transformers")
OWNERS = sorted({entry.owner for entry in CONTRACT})
TABLE = {entry.name for entry in CONTRACT}


@pytest.mark.parametrize("entry", CONTRACT, ids=str)
def test_the_installed_trl_is_as_relied_on(entry: Entry) -> None:
    difference = entry.difference()
    assert difference is None, f"trl {trl.__version__}: {difference}"


class Changed:
    """Stands for an owner of another version."""

    def __init__(self) -> None:
        self._kept = 1

    def _compute_loss(self, model: object, inputs: dict[str, int], num_items: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("name", "signature", "words"),
    [
        ("_compute_loss", "(self, model, inputs, num_items=0)", None),
        (
            "_compute_loss",
            "(self, model, inputs)",
            "(self, model, inputs) is now _compute_loss(self, model, inputs, num_items=0)",
        ),
        ("_get_output_dir", "(self, trial)", "(self, trial) is gone"),
        ("_kept", "", None),
        ("_logs", "", " is gone"),
    ],
)
def test_a_difference_is_one_line_that_names_both(name: str, signature: str, words: str | None) -> None:
    difference = Entry(f"{__name__}:Changed", name, signature).difference()
    assert difference == (None if words is None else f"{__name__}.Changed.{name}{words}")


def ancestors(trainer: type) -> list[type]:
    return [base for base in trainer.__mro__ if base.__module__.split(".")[0] in LIBRARIES]


def trainers() -> list[type]:
    """Our classes between TRL's trainer and the one of a run."""
    return [base for base in RunTrainer.__mro__ if base.__module__.startswith("efficient_rl")]


def private_names_of_the_libraries() -> set[str]:
    """Methods of trainers, what they assign, and the private names of the other owners in the table."""
    owners = [*ancestors(RunTrainer), *(resolve_name(owner) for owner in OWNERS)]
    found = {name for owner in owners for name in vars(owner)}
    found |= {name for owner in owners if isinstance(owner, type) for name in assigned(owner)}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def used(tree: ast.AST, inside_trainer: bool) -> Iterator[str]:
    """Names that code reads, replaces by `patch.object` or imports; those of `self` only inside a trainer."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (inside_trainer or ast.unparse(node.value) not in ("self", "cls")):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("patch.object", "getattr", "setattr", "hasattr"):
            yield from (each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            yield from (alias.name for alias in node.names)


@cache
def uses() -> dict[str, set[str]]:
    """Which private names of TRL and transformers each file uses, and each of our trainers of its own."""
    known, found = private_names_of_the_libraries(), {}
    for path in sorted((ROOT / "efficient_rl").glob("**/*.py")):
        found[str(path.relative_to(ROOT))] = set(used(ast.parse(path.read_text()), False)) & known
    for trainer in trainers():
        found[trainer.__name__] = set(used(ast.parse(inspect.getsource(trainer)), True)) & known
    return found


def test_every_private_name_that_is_used_stands_in_the_table() -> None:
    missing = {place: sorted(names - TABLE) for place, names in uses().items() if names - TABLE}
    assert missing == {}


def overrides() -> set[str]:
    inherited = {name for base in ancestors(RunTrainer) for name in vars(base)}
    return {name for trainer in trainers() for name in vars(trainer) if name in inherited and not name.startswith("__")}


def test_every_override_stands_in_the_table() -> None:
    assert overrides() >= {"_compute_loss", "_save_checkpoint", "create_optimizer"}
    assert overrides() - TABLE == set()


def test_nothing_stands_in_the_table_that_is_not_used() -> None:
    replaced = {"sync_weights", "create_model_from_path"}  # public
    assert TABLE - overrides() - set().union(*uses().values()) == replaced
