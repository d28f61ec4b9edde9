"""Finds the options of the configuration groups, shipped and own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from efficient_rl.errors import ConfigError, did_you_mean

Tree = dict[str, Any]


def config_folder(name: str) -> Path:
    """The folder `conf` or `sweeps`: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def option_file(group: str, name: str, folder: str | None = None) -> Path:
    """The file of an option, whether it is there or not: in `folder` if it is, else ours."""
    own = Path(folder or "") / group / f"{name}.yaml"
    return own if folder and own.is_file() else config_folder("conf") / group / f"{name}.yaml"


def load_option(group: str, name: str, folder: str | None = None) -> Tree:
    """The values of one option, from `folder` or the shipped ones, without its defaults list."""
    path = option_file(group, name, folder)
    if not path.is_file():
        raise unknown_option(group, name, folder)
    tree: Tree = OmegaConf.to_container(read_option(path), resolve=True)  # type: ignore[assignment]
    return tree


def read_option(path: Path) -> DictConfig:
    """The content of an option's file; ConfigError names the file and the place."""
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path} holds no options; write one `key: value` a line")
    return content


def unknown_option(group: str, name: str, folder: str | None = None) -> ConfigError:
    """The error that a group has no such option, with the valid ones."""
    remedy = did_you_mean(name, group_options(folder).get(group, ()))
    if folder:
        wanted = Path(folder) / group / f"{name}.yaml"
        for path in (Path(folder) / wanted.name, wanted.with_suffix(".yml")):
            if path.is_file():
                remedy = f"rename {path} to {wanted}"
    return ConfigError(f"unknown {group} {name!r}; {remedy}")


def check_folder(folder: str) -> None:
    """ConfigError unless there is such a folder for options of one's own."""
    if not folder or not Path(folder).is_dir():
        raise ConfigError(f"--config-dir {folder!r} is no folder here; make it, with <group>/<name>.yaml for each option")


def group_options(folder: str | None = None) -> dict[str, list[str]]:
    """The options of every group, from the shipped folder and `folder`."""
    files = [*config_folder("conf").glob("*/*.yaml")]
    groups = {path.parent.name for path in files}
    if folder:
        files += filter(lambda path: path.parent.name in groups, Path(folder).glob("*/*.yaml"))
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
