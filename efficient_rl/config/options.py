"""Finds the options of the configuration groups, shipped and own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from efficient_rl.errors import ConfigError, did_you_mean

Tree = dict[str, Any]


def config_folder(name: str) -> Path:
    """The folder `conf` or `sweeps`: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def load_option(group: str, name: str) -> Tree:
    """The values of one shipped option."""
    path = config_folder("conf") / group / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"unknown {group} {name!r}; {did_you_mean(name, group_options()[group])}")
    tree: Tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)  # type: ignore[assignment]
    return tree


def group_options(folder: str | None = None) -> dict[str, list[str]]:
    """The options of every group, from the shipped folder and `folder`."""
    files = [*config_folder("conf").glob("*/*.yaml")]
    if folder:
        files += Path(folder).glob("*/*.yaml")
    options: dict[str, set[str]] = {}
    for path in files:
        options.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}


def option_names(folder: Path) -> list[str]:
    """The names of all YAML files below a folder, without their suffix."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("**/*.yaml"))


def items_of(node: Any) -> Iterable[tuple[Any, Any]]:
    """The items of a dictionary or a list, keys or positions first; none of other values."""
    if isinstance(node, list):
        return enumerate(node)
    return node.items() if isinstance(node, dict) else ()
