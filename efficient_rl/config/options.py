"""Finds the options of the configuration groups, shipped and own."""

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
    roots = [config_folder("conf"), *([Path(folder)] if folder else [])]
    options: dict[str, set[str]] = {}
    for root in roots:
        for path in root.glob("*/*.yaml"):
            options.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}
