"""A launcher whose runs only look like training: they log rewards and publish a result that a formula gives."""

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from efficient_rl.config.run_config import RunConfig, from_dict
from efficient_rl.launch.base import Handle
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.attempt import AlreadyActive, AlreadyFinished, Attempt
from efficient_rl.rundir.result import Failure, RunResult
from efficient_rl.rundir.state import RunState

OPTION = """# Fake.
_target_: tests.fake_launcher.FakeLauncher
workers: 1
poll_seconds: 0.0
fails_at: null
"""


def fake_arguments(*overrides: str) -> list[str]:
    """Arguments of the sweep command for runs that only look like training; the option goes into the working directory."""
    options = Path("options/launcher")
    options.mkdir(parents=True, exist_ok=True)
    (options / "fake.yaml").write_text(OPTION)
    given = [text.split("=")[0] for text in overrides]
    own = [text for text in ("launcher=fake", "tracking.uri=none", "grpo.max_steps=3") if text.split("=")[0] not in given]
    return ["--config-dir", "options", *own, *overrides]


BEST_RATE = {"full": 3e-4, "first_k": 2e-3, "last_k": 1e-4, "lora": 3e-3}


def accuracy(run: RunConfig) -> float:
    """Falls off with the distance, in decades, from the strategy's best learning rate, and grows a little with size."""
    distance = abs(math.log10(run.grpo.learning_rate / BEST_RATE[run.strategy.name]))
    return max(0.0, 0.9 - 0.2 * distance + 0.01 * parameters(run) / 1000)


def parameters(run: RunConfig) -> int:
    arguments = run.strategy.arguments
    return 1000 * int(arguments.get("k") or arguments.get("rank") or 10)


def result(run: RunConfig, attempt: int) -> RunResult:
    measured = accuracy(run) if run.eval.split == "test" else accuracy(run) - 0.05
    evaluation = {
        "accuracy": measured, "greedy_accuracy": measured, "standard_error": 0.01, "pass_at_k": measured,
        "problems": run.eval.problems, "samples": run.eval.samples,
    }  # fmt: skip
    return RunResult(
        config_hash=run.config_hash, model=run.model.name, strategy=run.strategy.name, seed=run.seed,
        trainable_params=parameters(run), mean_active_params=float(parameters(run)), total_params=10000, accuracy=measured,
        accuracy_before=0.1, evaluation=evaluation, evaluation_before=evaluation | {"accuracy": 0.1}, final_reward=measured,
        peak_memory_bytes={"train": parameters(run) * 1000}, memory_parts_bytes={}, phase_seconds={}, train_seconds=1.0,
        total_seconds=1.5, steps=run.grpo.max_steps, tokens=100, code_version="fake", attempt=attempt,
        finished_at=time.time(),
    )  # fmt: skip


@dataclass(eq=False)
class FakeHandle(Handle):
    """A job, its attempt and how many steps it has done."""

    attempt: Attempt | None = None
    steps: int = 0


@dataclass
class FakeLauncher:
    """Does a step of every running job a poll. Runs at the learning rate `fails_at` fail.

    Writes the number of jobs in hand at each launch to `launches.jsonl` in the working directory.
    """

    workers: int | None = 1
    poll_seconds: float = 0.0
    fails_at: float | None = None
    grace_seconds: float = 0
    detaches = detach = False
    gpus_per_run = 0.0
    sharding = "ddp"
    trains = False  # so there is no model to look at before the launch
    _handles: list[FakeHandle] = field(default_factory=list)
    _ended: list[Handle] = field(default_factory=list)

    @property
    def slots(self) -> int:
        return self.workers or 1

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        handles = [FakeHandle(job) for job in jobs]
        self._handles.extend(handles)
        with Path("launches.jsonl").open("a") as stream:
            for job in jobs:
                stream.write(json.dumps({"run": job.key, "in_hand": len(self._handles), "pid": os.getpid()}) + "\n")
        return list(handles)

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        return []

    def poll(self, timeout: float = 0) -> list[Handle]:
        time.sleep(self.poll_seconds)
        for handle in list(self._handles):
            self._step(handle)
            if handle.state.ended:
                self._handles.remove(handle)
                self._ended.append(handle)
        ended, self._ended = self._ended, []
        return ended

    def _step(self, handle: FakeHandle) -> None:
        run, directory = from_dict(handle.job.config), handle.job.directory
        if handle.attempt is None:
            handle.state = RunState.RUNNING
            try:
                handle.attempt = directory.claim(run, handle.job.redo_through_attempt)
            except AlreadyFinished:
                handle.state = RunState.FINISHED
                return
            except AlreadyActive:
                handle.state = RunState.ELSEWHERE
                return
        handle.steps += 1
        if run.grpo.learning_rate == self.fails_at:
            handle.state, handle.failure = RunState.FAILED, Failure(handle.attempt.number, "diverged", "log.txt")
            directory.record_failure(handle.failure)
            handle.attempt.release()
            return
        handle.attempt.append(
            handle.steps, {"train/reward": accuracy(run), "time/step_seconds": 0.5, "train/tokens": 10.0 * handle.steps}
        )
        if handle.steps >= run.grpo.max_steps:
            handle.attempt.finish(result(run, handle.attempt.number))
            handle.attempt.release()  # this process lives on
            handle.state = RunState.FINISHED

    def requeue(self, handle: Handle, why: str) -> bool:
        raise NotImplementedError

    def cancel(self, handle: Handle) -> None:
        assert isinstance(handle, FakeHandle)
        self._handles.remove(handle)
        if handle.attempt is not None:
            handle.attempt.release()
        handle.state = RunState.STOPPED
        self._ended.append(handle)

    def stop(self) -> None:
        for handle in self._handles:
            if handle.attempt is not None:
                handle.attempt.release()
        self._handles.clear()

    def leave(self) -> None:
        self.stop()
