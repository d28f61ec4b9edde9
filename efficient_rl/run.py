"""One run from its configuration to its result: load, evaluate, train, evaluate again, publish."""

import functools
import json
import logging
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from efficient_rl.base_evaluation import BaseEvaluator, sharing
from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.config.run_options import Options
from efficient_rl.datasets import Problems, evaluation_seed, load_splits
from efficient_rl.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from efficient_rl.errors import ConfigError
from efficient_rl.evaluate import Evaluations, Evaluator, metrics_of, read_evaluations, summary
from efficient_rl.libraries import forget_process_group, ignore_warnings, quiet_libraries
from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.provenance import snapshot
from efficient_rl.rundir.result import RunResult
from efficient_rl.rundir.totals import totals

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from efficient_rl.training.grpo import EfficientGRPOTrainer

logger = logging.getLogger(__name__)
__all__ = ["Interrupted", "Options", "Session", "Stop", "execute", "prepare", "quiet_libraries", "train"]


class Interrupted(RuntimeError):
    """The run was asked to stop; a later attempt resumes from its checkpoint."""


class Stop:
    """Turns a signal into a flag that the run checks between steps."""

    def __init__(self) -> None:
        self.wanted = False

    def listen(self, number: int = signal.SIGTERM) -> None:
        """Listen to the signal beside whoever does; only the main thread of a process can."""
        before = signal.getsignal(number)
        signal.signal(number, functools.partial(self._on_signal, before))

    def check(self, group: ProcessGroup = SINGLE_PROCESS) -> None:
        """Raise Interrupted if any process of the run was asked to stop."""
        if group.all_reduce_any(self.wanted)[0]:
            raise Interrupted("asked to stop")

    def _on_signal(self, before: Any, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        if callable(before):
            before(number, frame)


def train(*overrides: str) -> RunResult:
    """Do one run in this process and return its result; that of a finished run comes back at once.

    `overrides` read as on the command line: `train("strategy=last_k", "grpo.max_steps=30")`.
    Launcher and tracking take no part. What an earlier call left unfinished resumes from its last
    checkpoint. Raises ConfigError for overrides that are wrong or name several runs, AlreadyActive
    while another process works on the run.
    """
    quiet_libraries()
    forget_process_group()
    points = expand(overrides)
    if len(points) > 1:
        raise ConfigError(f"the overrides name {len(points)} runs and train() does one; use python -m efficient_rl.sweep -m")
    settings = points[0].config
    if key := next((key for key in ("sweep", "filter", "dry_run") if settings[key]), None):
        raise ConfigError(f"{key}={settings[key]!r} is for sweeps; use python -m efficient_rl.sweep")
    if settings["search"]["_target_"]:
        raise ConfigError("search=... is for sweeps; use python -m efficient_rl.sweep")
    config = parse_run(points[0])
    directory = RunDirectory(Path(str(settings["output"])).resolve() / "runs" / config.config_hash)
    finished = directory.result()
    if finished is not None and not settings["force"]:
        return finished
    redo = (directory.newest_attempt() or 0) if settings["force"] else None
    with directory.claim(config, redo_through_attempt=redo) as attempt, warnings.catch_warnings():
        ignore_warnings()
        outputs = directory.folder.parents[1]
        return execute(config, attempt, Options.of(settings, outputs, snapshot(outputs)), Stop())


@dataclass
class Session:
    """A run that is ready to train; all processes of a `group` call its methods alike."""

    config: RunConfig
    attempt: Attempt
    stop: Stop
    group: ProcessGroup
    problems: Problems
    tokenizer: "PreTrainedTokenizerBase"
    trainer: "EfficientGRPOTrainer"
    evaluator: Evaluator
    base_evaluator: Evaluator | BaseEvaluator  # before the first step
    sizes: dict[str, float] = field(init=False)  # before training; in every line of evaluation

    def __post_init__(self) -> None:
        parameters = self.trainer.model.parameters()
        self.sizes = {
            "params/trainable": float(self.trainer.parameters.trainable_count),
            "params/total": float(sum(parameter.numel() for parameter in parameters)),
            "data/contaminated": float(self.problems.contaminated),
        }

    def evaluate(self, step: int) -> Evaluations:
        """Evaluate the model as it is now on all sets, and log the numbers for this step.

        That before the first step is shared with other runs, so its time is nobody's.
        """
        trainer, seed, started = self.trainer, evaluation_seed(self.config.eval.split), time.monotonic()
        evaluator = self.evaluator if step else self.base_evaluator
        found = {}
        with trainer.sampling():
            for name, problems in self.problems.eval_sets.items():
                found[name] = evaluator.evaluate(trainer.model, problems, seed)
        if self.group.is_main:
            took = {"time/evaluation_seconds": time.monotonic() - started} if step else {}
            self.attempt.append(step, metrics_of(found) | self.sizes | took)
        return found

    def train(self, *callbacks: "TrainerCallback") -> None:
        """Train to the last step, from the last checkpoint on; raises Interrupted after a stop."""
        for callback in callbacks:
            self.trainer.add_callback(callback)
        checkpoint = self.group.broadcast(RunDirectory(self.attempt.folder).checkpoint() if self.group.is_main else None)
        if checkpoint:
            logger.info("resuming from %s", checkpoint)
        self.trainer.train_from(checkpoint)
        self.stop.check(self.group)

    def save(self) -> None:
        """Write the trained model and the tokenizer into the run directory."""
        self.trainer.save_by(self._write_model)

    def _write_model(self) -> None:
        assert self.trainer.strategy is not None
        self.trainer.strategy.save(self.trainer.model, self.attempt.model_draft)
        self.tokenizer.save_pretrained(self.attempt.model_draft)


def prepare(
    config: RunConfig, attempt: Attempt, options: Options, stop: Stop, group: ProcessGroup = SINGLE_PROCESS
) -> Session:
    """Load model and problems, apply the strategy, and build trainer and evaluator."""
    import torch

    from efficient_rl.models import load_model, load_tokenizer
    from efficient_rl.prompts import Prompts
    from efficient_rl.training.memory import PhaseMeter
    from efficient_rl.training.settings import sampling_settings

    meter = PhaseMeter()
    tokenizer = load_tokenizer(config.model)
    problems = load_splits(config)
    prompts = Prompts(config.model, config.prompt, tokenizer, problems.examples)
    with meter.phase("load"):
        torch.manual_seed(config.seed)
        model = load_model(config.model)
        rows = prompts.rows(problems.train)
        asked = [row["prompt_ids"] for row in rows]
        asked += prompts.encode_all(list(map(prompts.write, chain(*problems.eval_sets.values()))))
        stop_ids = prompts.fitting_stop_ids(model, asked, config.grpo.max_completion_length)
        trainer = _make_trainer(config, attempt.checkpoints, options, group, model, tokenizer, rows, meter)
        trainer.stop_at(stop_ids)
    evaluator = Evaluator(
        tokenizer=tokenizer,
        encode=prompts.encoded,
        stop_ids=stop_ids,
        sampling=sampling_settings(config.grpo),
        samples=config.eval.samples,
        place=config.prompt.place,
        prefill=prompts.prefill,
        decode=trainer.decoder,
        between=partial(_between_batches, attempt, stop, group),
        group=group,
    )
    loaded = asdict(replace(config.model, name="", parameters=None))
    base = sharing(evaluator, options.evaluations, trainer.strategy, loaded, trainer.args.bf16, options.code_version)
    return Session(config, attempt, stop, group, problems, tokenizer, trainer, evaluator, base)


def _between_batches(attempt: Attempt, stop: Stop, group: ProcessGroup) -> None:
    if group.is_main:
        attempt.heartbeat()
    stop.check(group)


def _make_trainer(
    config: RunConfig,
    folder: Path,
    options: Options,
    group: ProcessGroup,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[dict[str, Any]],
    meter: Any,
) -> "EfficientGRPOTrainer":
    from datasets import Dataset

    from efficient_rl.training.grpo import Optimizations
    from efficient_rl.training.run_trainer import RunTrainer
    from efficient_rl.training.settings import grpo_arguments

    prompts = [{"prompt": row["prompt"]} for row in rows]
    return RunTrainer(
        model=model,
        reward_funcs=[term.function.build() for term in config.reward],
        args=grpo_arguments(config, folder, options.checkpoint_steps, group.size, options.micro_batches),
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
        strategy=config.strategy.build(),
        problems=rows,
        curriculum=config.curriculum.build(),
        meter=meter,
        optimizations=Optimizations(
            trunk_cache_bytes=config.grpo.trunk_cache_mib << 20, half_frozen=config.model.compute != "float32"
        ),
        sharded=options.sharding == "fsdp" and group.size > 1,
    )


def execute(
    config: RunConfig, attempt: Attempt, options: Options, stop: Stop, group: ProcessGroup = SINGLE_PROCESS
) -> RunResult:
    """Do the run, or what is left of it after its last checkpoint, and publish its result.

    All processes of a `group` call it with the same attempt; only rank 0 writes. Interrupted
    is raised after a checkpoint if `stop` is wanted; any error of the run itself propagates.
    """
    from efficient_rl.training.run_logger import EvaluateEvery, RunLogger, SavePolicy

    started = time.monotonic()
    session = prepare(config, attempt, options, stop, group)
    prepared = time.monotonic()
    before = _load_or_evaluate(attempt, group, "evaluation_before.json", lambda: session.evaluate(0))
    started += time.monotonic() - prepared
    policy = SavePolicy(config.grpo.num_iterations, 60 * options.checkpoint_minutes, lambda: stop.wanted)
    run_logger = RunLogger(attempt, session.trainer, policy, group)
    session.train(run_logger, EvaluateEvery(config.eval.steps, session.evaluate))
    after = session.evaluate(config.grpo.max_steps)
    session.save()
    seconds = time.monotonic() - started
    result = _publish(session, options.code_version, before, after, seconds) if group.is_main else None
    shared = group.broadcast(result)
    assert shared is not None
    return shared


def _load_or_evaluate(attempt: Attempt, group: ProcessGroup, name: str, evaluate: Callable[[], Evaluations]) -> Evaluations:
    """The evaluations that an earlier attempt wrote, or new ones."""
    known = group.broadcast(read_evaluations(attempt.folder / name) if group.is_main else None)
    if known is not None:
        return known
    found = evaluate()
    if group.is_main:
        attempt.write(name, json.dumps({each: asdict(evaluation) for each, evaluation in found.items()}))
    return found


def _publish(session: Session, version: str, before: Evaluations, after: Evaluations, seconds: float) -> RunResult:
    """Write the result; what spans attempts is read back from the metrics."""
    config, attempt = session.config, session.attempt
    lines = RunDirectory(attempt.folder).metrics()
    result = RunResult(
        config_hash=config.config_hash,
        model=config.model.name,
        strategy=config.strategy.name,
        seed=config.seed,
        trainable_params=int(session.sizes["params/trainable"]),
        total_params=int(session.sizes["params/total"]),
        accuracy=after[config.task.name].accuracy,
        accuracy_before=before[config.task.name].accuracy,
        evaluation=summary(after),
        evaluation_before=summary(before),
        total_seconds=seconds,
        steps=config.grpo.max_steps,
        code_version=version,
        attempt=attempt.number,
        finished_at=time.time(),
        **asdict(totals(row["metrics"] for row in lines)),
    )
    attempt.finish(result)
    return result
