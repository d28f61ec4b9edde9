"""Keeps the environment of the shell or job that started the tests away from them and their children."""

import atexit
import os
import shutil
import tempfile

DONE = "EFFICIENT_RL_TESTS"  # set for the children of a test, which may set what they like
FROM_A_CLUSTER = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "PMI")
FROM_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
FROM_A_USER = ("MLFLOW_", "HF_", "HUGGING", "TRANSFORMERS_", "HYDRA_", "WANDB_", "OPTUNA_")


def forget_the_users_environment() -> None:
    """Remove what would reach the tests; the cache of the hub becomes an empty folder.

    Call it before the libraries are imported: they read some of it then. In a child of a test it
    does nothing.
    """
    if DONE in os.environ:
        return
    for name in list(os.environ):
        if name.startswith((*FROM_A_CLUSTER, *FROM_A_LAUNCHER, *FROM_A_USER)):
            del os.environ[name]
    cache, owner = tempfile.mkdtemp(prefix="erl-hub-"), os.getpid()
    os.environ |= {"HF_HOME": cache, DONE: "yes"}

    def remove() -> None:
        if os.getpid() == owner:  # not a fork of it
            shutil.rmtree(cache, ignore_errors=True)

    atexit.register(remove)
