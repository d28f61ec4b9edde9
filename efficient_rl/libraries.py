"""Configures torch, transformers and TRL for a run: one thread, no telemetry."""

import logging
import os
import re
import warnings

VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "KINETO_LOG_LEVEL": "99",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # it warns of what was allocated before memory is measured and freed meanwhile
}
PROCESS_GROUP = re.compile(  # as torchrun, mpirun, srun and their like describe one
    r"(LOCAL_|GROUP_|ROLE_|NODE_)?(RANK|WORLD_SIZE)|ROLE_NAME|(MASTER|TORCHELASTIC|OMPI|PALS|FLUX|JSM|ALPS)_.*"
    r"|PMI.*|MV2_COMM_WORLD_.*|MPI_LOCAL.*"
)


def quiet_libraries() -> None:
    """One thread, no telemetry, no progress bars, no fork warnings; call before imports."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def forget_process_group() -> None:
    """Drop the process group that another launcher gave this process; only ours makes one."""
    for name in filter(PROCESS_GROUP.fullmatch, list(os.environ)):
        del os.environ[name]


def ignore_warnings() -> None:
    """Leave out what transformers says of TRL and PEFT, and tqdm of notebooks."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="IProgress not found")
