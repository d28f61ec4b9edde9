"""Reads Linux control groups, version 1 or 2: limits of this process, out-of-memory kills."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
UNBOUNDED = 1 << 60  # version 1 writes such a number where there is no bound


def oom_kills(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> int | None:
    """How many processes of this group the kernel has killed for lack of memory; None if unknown.

    In version 2 the groups below it count too.
    """
    for own, *_, top in _groups("memory", membership, mount):
        for folder in (own, top):  # a container shows its own group as the top
            text = _read(folder / "memory.events") or _read(folder / "memory.oom_control")
            if "oom_kill " in text:
                return int(text.split("oom_kill ")[1].split()[0])
    return None


def limits(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> tuple[float | None, int | None]:
    """Cores and bytes left to this process: the least bounds of its group and those above."""
    cores: list[float] = []
    sizes: list[int] = []
    for folder in chain.from_iterable(_groups("cpu", membership, mount)):
        cores += _cores(folder)
    for folder in chain.from_iterable(_groups("memory", membership, mount)):
        sizes += _bytes(folder)
    return min(cores, default=None), min(sizes, default=None)


def _groups(controller: str, membership: Path, mount: Path) -> Iterator[list[Path]]:
    """For each hierarchy with the controller: this process's group, its parents, the top."""
    for line in _read(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            trees = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            trees = [mount / controller]
        else:
            continue
        for tree in trees:
            parents = Path(group.lstrip("/")).parents
            yield [tree / group.lstrip("/"), *(tree / parent for parent in parents), tree]


def _cores(folder: Path) -> list[float]:
    """The bound of one group, if it has one: `quota period`, both in microseconds."""
    text = _read(folder / "cpu.max")
    text = text or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    numbers = text.split()
    return [int(numbers[0]) / int(numbers[1])] if len(numbers) == 2 and numbers[0].isdigit() else []


def _bytes(folder: Path) -> list[int]:
    """What the bound of one group, if it has one, leaves above what is in use."""
    for bound, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        text = _read(folder / bound)
        if text.isdigit() and int(text) < UNBOUNDED:
            return [int(text) - int(_read(folder / used) or 0)]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
