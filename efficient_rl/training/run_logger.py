"""Writes the trainer's metrics into the run directory, seals checkpoints, stops on request."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from efficient_rl.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from efficient_rl.metrics import CPU_SECONDS
from efficient_rl.training.block_activity import BlockActivity
from efficient_rl.training.settings import rename_metrics

COMPLETIONS_KEPT = 8
COMPLETION_STEPS = 10


class RunRecord(Protocol):
    """The part of `efficient_rl.rundir.attempt.Attempt` that training writes to."""

    folder: Path

    def append(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def append_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None: ...

    def seal_checkpoint(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class SavePolicy:
    """When a run saves beyond its regular checkpoints, and when it stops.

    Both wait for the end of a generation period of `period` steps: only there a resume is exact.
    A checkpoint is due `seconds` after the last one.
    """

    period: int
    seconds: float
    wants_stop: Callable[[], bool] = lambda: False


class RunLogger(TrainerCallback):
    """Writes a line of metrics a step and completions every ten, and seals every saved checkpoint.

    Of a `group`, all processes stop and save at the same step, and rank 0 writes.
    """

    def __init__(self, record: RunRecord, trainer: Any, policy: SavePolicy, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._record, self._trainer, self._policy, self._group = record, trainer, policy, group
        self._blocks = BlockActivity()
        self._saved = time.monotonic()
        self._cpu_seconds = time.process_time()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._cpu_seconds = time.process_time()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._cpu_seconds = time.process_time() - self._cpu_seconds
        if state.global_step % self._policy.period == 0 and state.global_step < state.max_steps:
            overdue = time.monotonic() - self._saved > self._policy.seconds
            stop, save = self._group.all_reduce_any(self._policy.wants_stop(), overdue)
            control.should_save |= stop or save
            control.should_training_stop |= stop

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        metrics = rename_metrics(logs or {})
        if "train/loss" not in metrics:
            return  # the summary after the last step
        meter = self._trainer.meter
        metrics |= {f"time/{name}_seconds": value for name, value in meter.take_seconds().items()}
        metrics |= {f"memory/{name}_bytes": float(size) for name, size in meter.take_bytes().items()}
        if not torch.cuda.is_available():
            metrics[CPU_SECONDS] = sum(self._group.all_gather(self._cpu_seconds))
        if not self._group.is_main:
            return
        metrics |= self._blocks.changes(self._trainer.model, self._trainer.parameters)
        self._record.append(state.global_step, metrics)
        if state.global_step == 1 or state.global_step % COMPLETION_STEPS == 0:
            self._keep_completions(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir is not None
        if self._group.is_main:
            self._record.seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._saved = time.monotonic()

    def _keep_completions(self, step: int) -> None:
        logs = self._trainer._logs
        columns = {"prompt": logs["prompt"], "completion": logs["completion"]}
        columns |= {f"reward_{name}": values for name, values in logs["rewards"].items()}
        columns["advantage"] = logs["advantages"]
        rows = islice(zip(*columns.values(), strict=False), COMPLETIONS_KEPT)
        self._record.append_rows(
            "completions.jsonl", [{"step": step, **dict(zip(columns, row, strict=True))} for row in rows]
        )


class EvaluateEvery(TrainerCallback):
    """Calls `evaluate` with the step at regular steps, except the last; 0 is never."""

    def __init__(self, steps: int, evaluate: Callable[[int], Any]) -> None:
        self._steps, self._evaluate = steps, evaluate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._steps and state.global_step % self._steps == 0 and state.global_step < state.max_steps:
            self._evaluate(state.global_step)
