"""Tells why jobs wait, and which of them will not start by themselves."""

import re
from collections.abc import Iterable, Mapping

from efficient_rl.launch.slurm.commands import JobState

AGAIN = "cancel it (`python -m efficient_rl.status --cancel`) and give the command again with "
BUDGET = "its account or qos has used up its budget; ask the administrators, or use another launcher.account"
STUCK: tuple[tuple[str, str], ...] = (  # Slurm's reason, and what helps; the first that matches
    (r"JobHeldAdmin", "the administrators hold it; ask them"),
    (r"[Hh]eld|JobHoldMaxRequeue", "`scontrol release {jobs}` lets it start"),
    (r"DependencyNeverSatisfied", AGAIN + "another launcher.additional.dependency"),
    (r"GrpWall|(?<!Run)Minutes(?!PerJob)|UsageThreshold", BUDGET),
    (r"TimeLimit|MaxWall|DeadLine", AGAIN + "a smaller launcher.timeout_min"),
    (r"PartitionNodeLimit|NodePerJob", AGAIN + "fewer launcher.nodes"),
    (r"Mem\w*Per(Job|Node|Limit)", AGAIN + "a smaller launcher.mem_gb"),
    (r"GRESPer(Job|Node)|MinGRES", AGAIN + "another launcher.gpus_per_node"),
    (r"Per(Job|Node)|QOSMin|PartitionConfig|BadConstraints", AGAIN + "a request that the partition and qos allow"),
    (r"Account", AGAIN + "another launcher.account"),
    (r"InvalidQOS|QOSNotAllowed", AGAIN + "another launcher.qos"),
    (r"Partition(Down|Inactive)", "its partition takes no jobs now; ask the administrators, or use another one"),
    (r"ReservationDeleted|InvalidReservation", AGAIN + "another launcher.additional.reservation"),
    (r"ReqNodeNotAvail.*UnavailableNodes", "the nodes that it may use are down, drained or reserved; see `sinfo -R`"),
)
LISTED = 5


def advice(reason: str) -> str | None:
    """What helps a job whose reason to wait does not pass by itself; None where it may pass."""
    for pattern, words in STUCK:
        if re.search(pattern, reason):
            return words
    return None


def warnings(states: Mapping[str, JobState]) -> dict[str, str]:
    """A line for each reason for which jobs wait for good, by reason."""
    jobs: dict[str, list[str]] = {}
    for job, state in states.items():
        if state.waits and advice(state.reason):
            jobs.setdefault(state.reason, []).append(job)
    return {reason: _warning(reason, stuck) for reason, stuck in jobs.items()}


def reasons(states: Iterable[JobState]) -> list[str]:
    """The reasons for which jobs wait, each once."""
    return sorted({state.reason for state in states if state.waits and state.reason})


def _warning(reason: str, jobs: list[str]) -> str:
    named = ", ".join(jobs[:LISTED])
    if len(jobs) > LISTED:
        named += f" and {len(jobs) - LISTED} more"
    who = f"jobs {named} will not start by themselves" if len(jobs) > 1 else f"job {named} will not start by itself"
    return f"{who} ({reason}): {str(advice(reason)).replace('{jobs}', ' '.join(jobs))}"
