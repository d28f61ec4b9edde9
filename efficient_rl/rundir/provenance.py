"""Records which code and packages made a result: commit, uncommitted changes, installed versions."""

import hashlib
import importlib.metadata
import subprocess
from pathlib import Path

import efficient_rl


def snapshot(outputs: Path) -> str:
    """The code version, `commit` or `commit-dirty-digest`; its diff and packages are kept in `outputs/code/<version>/`."""
    root = Path(efficient_rl.__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / "pyproject.toml").is_file() else None
    diff = (_git(root, "diff", "HEAD") or "") if commit else ""
    version = commit.strip()[:12] if commit else f"package-{_package_version()}"
    if diff:
        version += f"-dirty-{hashlib.sha256(diff.encode()).hexdigest()[:8]}"
    folder = outputs / "code" / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "changes.diff").write_text(diff)
    (folder / "packages.txt").write_text("\n".join(_packages()) + "\n")
    return version


def _package_version() -> str:
    try:
        return importlib.metadata.version("efficient_rl")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _packages() -> list[str]:
    found = {(d.metadata["Name"] or "").lower(): d.version for d in importlib.metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
