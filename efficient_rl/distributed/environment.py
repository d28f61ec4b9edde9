"""What the processes of one run must know of each other before they start: their numbers, and where they meet."""

import hashlib

from efficient_rl.distributed.rendezvous import JOB_VARIABLE
from efficient_rl.errors import ConfigError

FIRST_PORT, LAST_PORT = 20000, 59999


def master_port(job_key: str) -> int:
    """The port at which the processes of a job meet: the same for the same key, different ones for different jobs.

    Two jobs of one machine get the same one in 1 of 40,000 cases, and something else may listen
    there: whoever joins tries the next ones too (`team.Team.join`), and recognizes its own job by
    the key.
    """
    digest = hashlib.sha256(job_key.encode()).digest()
    return FIRST_PORT + int.from_bytes(digest[:8]) % (LAST_PORT + 1 - FIRST_PORT)


def distributed_environment(
    rank: int, world_size: int, local_rank: int, local_world_size: int, address: str, job_key: str
) -> dict[str, str]:
    """The environment variables of process `rank` of `world_size`, as torch.distributed reads them.

    `local_rank` counts the `local_world_size` processes on its machine; `address` is that of the
    machine of rank 0; `job_key` names the start of the run (cluster job, index, attempt), so that
    another start meets elsewhere.
    """
    for name, value, size in (("rank", rank, world_size), ("local_rank", local_rank, local_world_size)):
        if not 0 <= value < size:
            raise ConfigError(f"{name}={value} must lie in 0 to {size - 1}; there are {size} processes")
    if local_world_size > world_size:
        raise ConfigError(f"local_world_size={local_world_size} exceeds world_size={world_size}; it is a part of it")
    if not job_key:
        raise ConfigError("job_key='' names no job; give the cluster's job id, or the run's hash and its attempt")
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(master_port(job_key)),
        JOB_VARIABLE: job_key,
    }
