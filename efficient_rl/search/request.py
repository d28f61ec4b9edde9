"""Reads a command line that names a search, and hands it to the kind of search that it names."""

from dataclasses import dataclass
from typing import Protocol

from rich.console import Console

from efficient_rl.config.compose import override_key
from efficient_rl.config.schema import Component
from efficient_rl.errors import ConfigError
from efficient_rl.search.space import Space
from efficient_rl.sweep.request import SHARED_KEYS, Overrides, Request, make_request


@dataclass(frozen=True)
class Search:
    """What is searched. `arguments` are the overrides that say so: those of runs, without those of the whole sweep."""

    request: Request
    space: Space
    arguments: tuple[str, ...]
    rules: tuple[str, ...]
    extra_folder: str | None

    @property
    def question(self) -> tuple[str, ...]:
        """What tells this search from another one of the same name."""
        return (*self.arguments, *(f"filter={rule}" for rule in self.rules))


class Kind(Protocol):
    """A kind of search, named by `_target_` in conf/search."""

    def carry_out(self, search: Search, console: Console) -> int: ...

    def show(self, search: Search, console: Console) -> None: ...


def do_search(overrides: Overrides, extra_folder: str | None, console: Console) -> int:
    """Do, or with dry_run show, the search that the overrides name; the exit status."""
    own = any(override_key(text) == "eval.split" for text in overrides.arguments)
    split = () if own else ("eval.split=validation",)  # what chooses the best must not be what it is then measured on
    space = Space([*overrides.arguments, *split], overrides.rules, extra_folder)
    tree = space.tree()
    request = make_request(overrides, tree, (), 0)
    if request.settings["force"]:
        raise ConfigError("a search does no run twice; use force=false, or give it another name=...")
    arguments = [text for text in overrides.arguments if text.lstrip("+~").split("=")[0].split(".")[0] not in SHARED_KEYS]
    search = Search(request, space, tuple(arguments), tuple(overrides.rules), extra_folder)
    kind = _kind(tree["search"])
    if request.settings["dry_run"]:
        kind.show(search, console)
        console.print("nothing was started")
        return 0
    return kind.carry_out(search, console)


def _kind(settings: dict[str, object]) -> Kind:
    arguments = dict(settings)
    kind: Kind = Component("search", str(arguments.pop("_target_")), arguments).build()
    return kind
