"""Checks that the installed versions work together."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from efficient_rl.doctor.finding import Finding, ok

PYTHON = (3, 11)
SHOWN = ("torch", "transformers", "trl", "peft")
TOGETHER = {  # a package, and what another one needs of it where both are installed
    "vllm": ("trl", "vllm>=0.22.0,<=0.31.0", "TRL talks to vLLM's own classes, which change"),
    "optuna": ("hydra-optuna-sweeper", "optuna<3", "that sweeper breaks newer studies; efficient_rl does not use it"),
}
OLDEST_DRIVERS = {"11": "450.80", "12": "525.60", "13": "580.65"}  # of Linux, by CUDA's major version (NVIDIA's table)


def installed_versions() -> dict[str, str]:
    """Every installed distribution's version, by its canonical name (lower case, hyphens)."""
    named = importlib.metadata.distributions()
    return {canonicalize_name(found.metadata["Name"]): found.version for found in named if found.metadata["Name"]}


def requirements() -> list[str]:
    """What this package requires without extras: as installed, or as the checkout says."""
    try:
        asked = importlib.metadata.requires("efficient_rl") or []
        return [text for text in asked if "extra ==" not in text]
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not project.is_file():
            return []
        dependencies: list[str] = tomllib.loads(project.read_text())["project"]["dependencies"]
        return dependencies


def check_versions(
    installed: Mapping[str, str], required: Iterable[str], python: tuple[int, int] = sys.version_info[:2]
) -> list[Finding]:
    """Python, the required packages, and packages that are only there if they fit."""
    findings = []
    if python < PYTHON:
        what = f"Python {python[0]}.{python[1]} is older than {PYTHON[0]}.{PYTHON[1]}"
        findings.append(Finding("failure", "versions", what, "nothing here loads", "python3.11 -m venv .venv"))
    for text in required:
        requirement = Requirement(text)
        version = installed.get(canonicalize_name(requirement.name))
        if version is None:
            what, remedy = f"{requirement.name} is not installed", "pip install -c constraints.txt -e ."
            findings.append(Finding("failure", "versions", what, "efficient_rl imports it", remedy))
        elif not requirement.specifier.contains(version, prereleases=True):
            what = f"{requirement.name} {version} is outside {requirement.specifier}"
            remedy = f"pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"
            findings.append(Finding("failure", "versions", what, "the tested versions behave differently", remedy))
    for name, (other, needs, why) in TOGETHER.items():
        if name in installed and other in installed and not Requirement(needs).specifier.contains(installed[name]):
            what = f"{name} {installed[name]} does not work with {other} {installed[other]}, which needs {needs}"
            findings.append(Finding("failure", "versions", what, why, f"pip install '{needs}'"))
    shown = [f"{name} {installed[name]}" for name in SHOWN if name in installed]
    named = ", ".join(shown)
    return findings or [ok("versions", f"Python {python[0]}.{python[1]}, {named}")]


def check_driver(driver: str | None, cuda: str | None) -> list[Finding]:
    """Whether the driver is new enough for torch's CUDA; None: no GPU, or torch for CPUs."""
    if driver is None:
        return []
    if cuda is None:
        what, why = "there is a GPU, and torch is built for CPUs", "training would not use the GPU"
        return [Finding("warning", "driver", what, why, "pip install torch (from the index for your CUDA version)")]
    oldest = OLDEST_DRIVERS.get(cuda.split(".")[0])
    if oldest is not None and Version(driver) < Version(oldest):
        what = f"driver {driver} is older than {oldest}, which CUDA {cuda} needs"
        why, remedy = "torch would not find the GPU", "update the driver, or install torch for an older CUDA"
        return [Finding("failure", "driver", what, why, remedy)]
    return [ok("driver", f"driver {driver} for CUDA {cuda}")]


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, without importing torch; None for a CPU build."""
    try:
        path = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = re.search(r"^cuda[^=\n]*=\s*['\"]([^'\"\n]+)", Path(str(path)).read_text(), re.MULTILINE)
    return found[1] if found else None
