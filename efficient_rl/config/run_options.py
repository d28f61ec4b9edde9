"""What may differ between two executions of a run without changing its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from efficient_rl.errors import require, require_known

SHARDINGS = ("ddp", "fsdp")


@dataclass(frozen=True)
class Options:
    """How often a run is saved (steps, minutes), the version of the code, how it is spread.

    `micro_batches`: into how many parts every pass is cut, after running out of memory. `sharding`:
    what several processes share, `ddp` only the batch, `fsdp` weights, gradients and optimizer
    state too. `evaluations`: the folder of evaluations that runs share, None where this one has
    its own.
    """

    checkpoint_steps: int = 25
    checkpoint_minutes: float = 10.0
    code_version: str = "unknown"
    micro_batches: int = 1
    sharding: str = "ddp"
    evaluations: Path | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], outputs: Path, code_version: str, sharding: str = "ddp") -> Self:
        """Those of a command with these settings; `force` takes no evaluation of others over."""
        shared = None if settings["force"] else outputs / "evaluations"
        steps, minutes = settings["checkpoint_steps"], settings["checkpoint_minutes"]
        return cls(steps, minutes, code_version, sharding=sharding, evaluations=shared)

    def __post_init__(self) -> None:
        require(self.micro_batches >= 1, "micro_batches", self.micro_batches, "must be at least 1")
        require_known("sharding", self.sharding, SHARDINGS)
