"""Records which code made a result: commit, uncommitted changes, installed packages."""

import hashlib
import importlib.metadata
import re
import subprocess
from functools import cache
from pathlib import Path

import efficient_rl
from efficient_rl.files import write_atomic

FIELD = re.compile(r"^(Name|Version): *(\S+)", re.MULTILINE)  # of a package's METADATA; the first counts


def snapshot(outputs: Path) -> str:
    """The code version, `commit` or `commit-dirty-digest`, whose diff `outputs/code/` keeps."""
    root = Path(efficient_rl.__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / "pyproject.toml").is_file() else None
    diff = (_git(root, "diff", "HEAD") or "") if commit else ""
    version = commit.strip()[:12] if commit else f"package-{_package_version()}"
    if diff:
        version += f"-dirty-{hashlib.sha256(diff.encode()).hexdigest()[:8]}"
    folder = outputs / "code" / version
    write_atomic(folder / "changes.diff", diff)
    write_atomic(folder / "packages.txt", "\n".join(packages()) + "\n")
    return version


def _package_version() -> str:
    try:
        return importlib.metadata.version("efficient_rl")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def packages() -> list[str]:
    """Every installed package, name==version; only two fields of its metadata are read."""
    found = {}
    for installed in importlib.metadata.distributions():
        fields = dict(reversed(FIELD.findall(installed.read_text("METADATA") or installed.read_text("PKG-INFO") or "")))
        if {"Name", "Version"} <= fields.keys():
            found[fields["Name"].lower()] = fields["Version"]
    return list(map("==".join, sorted(found.items())))


@cache
def source_digest() -> str:
    """A digest of all of our modules as this process finds them on the disk."""
    digest = hashlib.sha256()
    for path in sorted(Path(efficient_rl.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        return subprocess.check_output(
            ["git", "-C", str(root), *arguments], stderr=subprocess.DEVNULL, text=True, timeout=20
        )
    except (FileNotFoundError, subprocess.SubprocessError):
        return None
