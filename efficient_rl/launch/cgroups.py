"""Counts how many processes of this process's control group the kernel has ended for lack of memory."""

from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def oom_kills(groups: Path = GROUPS, mount: Path = MOUNT) -> int | None:
    """The kernel's counter, of cgroup v2 or v1; None where it keeps none that can be read from here.

    Processes that are forked from this one, and those of the groups below it in v2, count too.
    """
    for path in _counters(groups, mount):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if counts:
            return int(counts[0])
    return None


def _counters(groups: Path, mount: Path) -> list[Path]:
    """Where the counter may be: below the group's own path, or at the top where a container shows its group as the root."""
    try:
        entries = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, group in entries:
        if controllers == "":
            found += [mount / part / group.lstrip("/") / "memory.events" for part in ("", "unified")]
            found.append(mount / "memory.events")
        elif "memory" in controllers.split(","):
            found += [mount / "memory" / part / "memory.oom_control" for part in (group.lstrip("/"), "")]
    return found
