"""Writes what the trainer logs into the run directory, seals its checkpoints and stops it when asked."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from efficient_rl.distributed.process_group import ALONE, Team
from efficient_rl.training.block_activity import BlockActivity
from efficient_rl.training.memory import PhaseMeter

COMPLETIONS_KEPT = 8
COMPLETION_STEPS = 10


class RunRecord(Protocol):
    """The part of `efficient_rl.rundir.attempt.Attempt` that training writes to."""

    folder: Path

    def append(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def append_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None: ...

    def seal_checkpoint(self, folder: Path) -> None: ...


class RunLogger(TrainerCallback):
    """One line of metrics a step, a sample of completions every ten, a sealed checkpoint whenever one is saved.

    A stop, and a checkpoint because the last is `save_seconds` old, wait for the end of a
    generation period of `period` steps: only there a resume is exact. Of a `team`, all stop and
    save at the same step, and rank 0 writes.
    """

    def __init__(
        self,
        record: RunRecord,
        rename: Callable[[Mapping[str, Any]], dict[str, float]],
        meter: PhaseMeter,
        trainer: Any,
        wants_stop: Callable[[], bool],
        measure: Callable[[int], Any],
        measure_steps: int,
        period: int,
        save_seconds: float,
        team: Team = ALONE,
    ) -> None:
        self._record = record
        self._rename = rename
        self._meter = meter
        self._trainer = trainer
        self._blocks = BlockActivity()
        self._wants_stop = wants_stop
        self._measure = measure
        self._measure_steps = measure_steps
        self._period = period
        self._save_seconds = save_seconds
        self._team = team
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        aligned = state.global_step % self._period == 0
        if aligned and state.global_step < state.max_steps:
            overdue = time.monotonic() - self._saved > self._save_seconds
            stop, save = self._team.any(self._wants_stop(), overdue)
            control.should_save |= stop or save
            control.should_training_stop |= stop
        if self._measure_steps and state.global_step % self._measure_steps == 0 and state.global_step < state.max_steps:
            self._measure(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        metrics = self._rename(logs or {})
        if "train/loss" not in metrics:
            return  # the summary after the last step
        metrics |= {f"time/{name}_seconds": value for name, value in self._meter.take_seconds().items()}
        metrics |= {f"memory/{name}_bytes": float(value) for name, value in self._meter.take_bytes().items()}
        if not self._team.is_main:
            return
        metrics |= self._blocks.changes(self._trainer.model, self._trainer.parameters)
        self._record.append(state.global_step, metrics)
        if state.global_step == 1 or state.global_step % COMPLETION_STEPS == 0:
            self._keep_completions(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir is not None
        if self._team.is_main:
            self._record.seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._saved = time.monotonic()

    def _keep_completions(self, step: int) -> None:
        logs = self._trainer._logs
        rewards = {name: list(values) for name, values in logs["rewards"].items()}
        kept = min(COMPLETIONS_KEPT, len(logs["prompt"]))
        rows = [
            {
                "step": step,
                "prompt": logs["prompt"][index],
                "completion": logs["completion"][index],
                **{f"reward_{name}": values[index] for name, values in rewards.items()},
                "advantage": logs["advantages"][index],
            }
            for index in range(kept)
        ]
        self._record.append_rows("completions.jsonl", rows)
