"""The outcome of a run: result.json or failure.json. Imports neither Hydra nor torch."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from efficient_rl.errors import check_types
from efficient_rl.files import write_atomic

Cause = Literal[
    "error", "out_of_memory", "killed", "stalled", "time_limit", "preempted", "node_failure",
    "cancelled", "not_started",
]  # fmt: skip
MISSING = (FileNotFoundError, NotADirectoryError)
CLASS_PATH = re.compile(r"^(?:[A-Za-z_]\w*\.)+(?:ConfigError: |SchedulerError: |(?=[A-Z]\w*(?:: |$)))")
EVALUATED = {"accuracy", "greedy_accuracy", "standard_error", "pass_at_k", "problems", "samples"}


@dataclass(frozen=True)
class RunResult:
    """What a finished run measured; `accuracy` is held-out avg@k after training.

    `peak_memory_bytes` is by phase of training, `memory_parts_bytes` what parameters, gradients,
    optimizer state, reference, saved activations and the trunk cache held at most. `train_seconds`
    are those of the wall clock, `train_cpu_seconds` the CPU time of the same steps; None on a GPU,
    and in results from before it was recorded. `sampler_gap` is how far sampler and trainer were
    apart in a token's log-probability, on average over the steps (`training/sampler_gap.py`).
    """

    config_hash: str
    model: str
    strategy: str
    seed: int
    trainable_params: int
    mean_active_params: float
    total_params: int
    accuracy: float
    accuracy_before: float
    evaluation: dict[str, Any]
    evaluation_before: dict[str, Any]
    final_reward: float
    peak_memory_bytes: dict[str, int]
    memory_parts_bytes: dict[str, int]
    phase_seconds: dict[str, float]
    train_seconds: float
    total_seconds: float
    steps: int
    tokens: int
    code_version: str
    attempt: int
    finished_at: float
    train_cpu_seconds: float | None = None
    sampler_gap: float | None = None

    def __post_init__(self) -> None:
        check_types("result", self)
        for values in (self.peak_memory_bytes, self.memory_parts_bytes, self.phase_seconds):
            _require_numbers(values)
        for values in (self.evaluation, self.evaluation_before):
            if missing := EVALUATED - set(values):
                raise ValueError(f"the evaluation lacks {', '.join(sorted(missing))}")
            _require_numbers({name: values[name] for name in EVALUATED})

    @property
    def gain(self) -> float:
        """Accuracy after training less before."""
        return self.accuracy - self.accuracy_before

    @property
    def greedy_accuracy(self) -> float:
        """Accuracy of greedy completions after training."""
        return float(self.evaluation["greedy_accuracy"])

    @property
    def pass_at_k(self) -> float:
        """Share of the problems that one of `samples` completions solved."""
        return float(self.evaluation["pass_at_k"])

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over the held-out problems."""
        return float(self.evaluation["standard_error"])

    @property
    def problems(self) -> int:
        """How many held-out problems there are."""
        return int(self.evaluation["problems"])

    @property
    def samples(self) -> int:
        """Completions drawn for each held-out problem."""
        return int(self.evaluation["samples"])

    @property
    def right(self) -> tuple[int, ...]:
        """Right samples of every held-out problem after training; () if not recorded."""
        return tuple(self.evaluation.get("right", ()))

    @property
    def right_before(self) -> tuple[int, ...]:
        """Right samples of every held-out problem before training; () if not recorded."""
        return tuple(self.evaluation_before.get("right", ()))

    @property
    def by_difficulty(self) -> dict[str, float]:
        """Accuracy at every level of difficulty after training."""
        return dict(self.evaluation.get("by_difficulty", {}))

    @property
    def by_difficulty_before(self) -> dict[str, float]:
        """Accuracy at every level of difficulty before training."""
        return dict(self.evaluation_before.get("by_difficulty", {}))

    @property
    def sets(self) -> dict[str, float]:
        """Accuracy on every further evaluation set after training."""
        sets = self.evaluation.get("sets", {})
        return {name: float(evaluation["accuracy"]) for name, evaluation in sets.items()}

    @property
    def highest_peak_bytes(self) -> int:
        """Peak memory of the phase with the highest."""
        return int(max(self.peak_memory_bytes.values(), default=0))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The valid result of the run directory, or None."""
        try:
            result = cls(**json.loads((folder / "result.json").read_text()))
        except (*MISSING, ValueError, TypeError):
            return None
        return result if result.config_hash == folder.name else None


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended without a result: the kind of its end, and in words.

    `error` names the class of an exception, not its modules; of a bad request it is the message.
    """

    attempt: int
    error: str
    log: str
    cause: Cause = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", CLASS_PATH.sub("", self.error, count=1))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The newest failure in the run directory, of whichever attempt, or None."""
        try:
            failure = cls(**json.loads((folder / "failure.json").read_text()))
        except (*MISSING, ValueError, TypeError):
            return None
        valid = isinstance(failure.error, str) and isinstance(failure.log, str)
        return failure if valid and failure.cause in get_args(Cause) else None

    def write(self, folder: Path) -> None:
        """Replace the failure in the run directory."""
        write_atomic(folder / "failure.json", json.dumps(asdict(self)))


def _require_numbers(values: dict[str, Any]) -> None:
    if not all(isinstance(value, int | float) for value in values.values()):
        raise ValueError(f"{values!r} must hold numbers")
