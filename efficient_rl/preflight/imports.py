"""Checks a dotted path to a function by reading files, without importing them."""

import ast
import difflib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path


@lru_cache(maxsize=256)
def trouble_with(path: str) -> str | None:
    """Why nothing can be at a path such as `trl.rewards.think_format_reward`; None if it may be."""
    module, _, name = path.rpartition(".")
    place: list[str] | None = None
    file: Path | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        found = _find(".".join(parts[:depth]), place)
        if found is None:
            missing = "install the package that has it" if place is None else _near(parts[depth - 1], _modules(place))
            return f"there is no module {'.'.join(parts[:depth])!r}; {missing}"
        place = list(found.submodule_search_locations or ())
        file = Path(found.origin) if found.origin and found.origin.endswith(".py") else None
    names = set(_names(file)) if file is not None else {"*"}
    if names & {name, "*", "__getattr__"}:
        return None
    return f"{module} has no {name!r}; {_near(name, names)}"


def _find(name: str, place: list[str] | None) -> ModuleSpec | None:
    """Where a module is, by the ways that imports go, without importing its package."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, place)
        if spec is not None:
            return spec
    return None


def _modules(places: Iterable[str]) -> set[str]:
    names = set[str]()
    for place in map(Path, places):
        names |= {entry.stem for entry in place.glob("*.py")} | {entry.parent.name for entry in place.glob("*/__init__.py")}
    return names


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "name one of its functions as package.module.function"


def _names(file: Path) -> Iterator[str]:
    """What a module may hold, generously: what is defined, imported or assigned anywhere in it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        yield "*"
        return
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.Call(func=ast.Name(id="globals" | "setattr")):
                yield "*"
