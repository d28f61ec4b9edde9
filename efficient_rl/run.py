"""One run from its configuration to its result: load, evaluate, train, evaluate again, publish."""

import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.config.schema import PromptSettings
from efficient_rl.datasets import evaluation_seed, load_splits
from efficient_rl.distributed.process_group import ALONE, Team
from efficient_rl.errors import ConfigError, require, require_known
from efficient_rl.evaluate import Evaluation, Examiner
from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.provenance import snapshot
from efficient_rl.rundir.result import RunResult
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from efficient_rl.prompts import Prompts
    from efficient_rl.training.grpo import EfficientGRPOTrainer
    from efficient_rl.training.memory import PhaseMeter

logger = logging.getLogger(__name__)
SHARDINGS = ("ddp", "fsdp")
Evaluations = dict[str, Evaluation]  # by evaluation set; the run's own task first


class Interrupted(RuntimeError):
    """The run was asked to stop; its checkpoint is written and a later attempt goes on from there."""


class Stop:
    """Turns SIGTERM into a wish to stop that the run looks at between its steps."""

    def __init__(self) -> None:
        self.wanted = False

    def listen(self) -> None:
        """Listen to SIGTERM; only the main thread of a process can."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def check(self, team: Team = ALONE) -> None:
        """Raise Interrupted if any process of the run was asked to stop."""
        if team.any(self.wanted)[0]:
            raise Interrupted("asked to stop")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True


@dataclass(frozen=True)
class Options:
    """What does not change a run's result: how often it is saved (in steps, and in minutes), and which code it ran.

    `micro_batches`: into how many parts every pass is cut, after running out of memory. `sharding`:
    what several processes share, `ddp` only the batch, `fsdp` weights, gradients and optimizer
    state too.
    """

    checkpoint_steps: int = 25
    checkpoint_minutes: float = 10.0
    code_version: str = "unknown"
    micro_batches: int = 1
    sharding: str = "ddp"

    def __post_init__(self) -> None:
        require(self.micro_batches >= 1, "micro_batches", self.micro_batches, "must be at least 1")
        require_known("sharding", self.sharding, SHARDINGS)


def train(*overrides: str) -> RunResult:
    """Do one run in this process and return its result; that of a finished run comes back at once.

    `overrides` read as on the command line: `train("strategy=last_k", "grpo.max_steps=30")`.
    Launcher and tracking take no part. What an earlier call left unfinished goes on from its last
    checkpoint. Raises ConfigError for overrides that are wrong or name several runs, AlreadyActive
    while another process works on the run.
    """
    quiet_libraries()
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
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of TRL and PEFT, not of us
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook without widgets
        version = snapshot(directory.folder.parents[1])
        options = Options(settings["checkpoint_steps"], settings["checkpoint_minutes"], version)
        return execute(config, attempt, options, Stop())


def execute(config: RunConfig, attempt: Attempt, options: Options, stop: Stop, team: Team = ALONE) -> RunResult:
    """Do the run, or what is left of it after its last checkpoint, and publish the result in its directory.

    All processes of a `team` call it with the same attempt; rank 0 alone writes. Raises Interrupted
    when `stop` is wanted, after a checkpoint; any error of the run itself propagates.
    """
    import torch

    from efficient_rl.models import load_model, load_tokenizer
    from efficient_rl.prompts import Prompts
    from efficient_rl.training.memory import PhaseMeter
    from efficient_rl.training.merging import merged
    from efficient_rl.training.run_logger import RunLogger
    from efficient_rl.training.sampler import SamplingSettings
    from efficient_rl.training.settings import rename_metrics

    started = time.monotonic()
    meter = PhaseMeter()
    tokenizer = load_tokenizer(config.model)
    problems = load_splits(config)
    prompts = Prompts(config.model, config.prompt, tokenizer, problems.examples)
    strategy: Strategy = config.strategy.build()
    with meter.phase("load"):
        torch.manual_seed(config.seed)
        base = load_model(config.model)
        stop_ids = prompts.stop_ids(base)
        rows = [_row(problem, prompts, config.prompt) for problem in problems.train]
        trainer = _make_trainer(config, attempt, options, team, meter, base, strategy, tokenizer, rows)
        trainer.eos_token_ids = stop_ids
    trainable, total = trainer.parameters.trainable_count, sum(p.numel() for p in trainer.model.parameters())

    def between_batches() -> None:
        if team.is_main:
            attempt.heartbeat()
        stop.check(team)

    examiner = Examiner(
        tokenizer=tokenizer,
        encode=lambda problem: prompts.encode(prompts.write(problem)),
        stop_ids=stop_ids,
        sampling=SamplingSettings(
            config.grpo.max_completion_length, config.grpo.temperature, config.grpo.top_p, config.grpo.top_k
        ),
        samples=config.eval.samples,
        place=config.prompt.place,
        prefill=config.prompt.prefill,
        between=between_batches,
        team=team,
    )

    problems_seed = evaluation_seed(config.eval.split)

    def measure(step: int) -> Evaluations:
        with meter.phase("evaluation"), trainer.whole_weights(), merged(trainer.model):
            found = {
                n: examiner.evaluate(trainer.model, measured, problems_seed) for n, measured in problems.eval_sets.items()
            }
        sizes = {"params/trainable": trainable, "params/total": total, "data/contaminated": problems.contaminated}
        if team.is_main:
            attempt.append(step, _evaluation_metrics(found) | {name: float(size) for name, size in sizes.items()})
        return found

    before = _remembered(attempt, team, "evaluation_before.json", lambda: measure(0))
    run_logger = RunLogger(
        record=attempt,
        rename=rename_metrics,
        meter=meter,
        trainer=trainer,
        wants_stop=lambda: stop.wanted,
        measure=measure,
        measure_steps=config.eval.steps,
        period=config.grpo.num_iterations,
        save_seconds=60 * options.checkpoint_minutes,
        team=team,
    )
    trainer.add_callback(run_logger)
    checkpoint = team.share(RunDirectory(attempt.folder).checkpoint() if team.is_main else None)
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    trainer.train_from(checkpoint)
    stop.check(team)
    after = measure(config.grpo.max_steps)

    def write_model() -> None:
        strategy.save(trainer.model, attempt.model_draft)
        tokenizer.save_pretrained(attempt.model_draft)

    trainer.save_by(write_model)
    seconds, sizes = time.monotonic() - started, (trainable, total)
    result = _publish(config, attempt, options, before, after, sizes, seconds) if team.is_main else None
    shared = team.share(result)
    assert shared is not None
    return shared


def _remembered(attempt: Attempt, team: Team, name: str, compute: Callable[[], Evaluations]) -> Evaluations:
    """The evaluations that an earlier attempt wrote, or new ones."""
    known = team.share(_read_evaluations(attempt.folder / name) if team.is_main else None)
    if known is not None:
        return known
    found = compute()
    if team.is_main:
        attempt.write(name, json.dumps({each: asdict(evaluation) for each, evaluation in found.items()}))
    return found


def _read_evaluations(path: Path) -> Evaluations | None:
    """Evaluations from a file; None where it is not there, or damaged, so that they are measured again."""
    try:
        return {each: Evaluation(**values) for each, values in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _row(problem: Problem, prompts: "Prompts", settings: PromptSettings) -> dict[str, Any]:
    """One row of training data: what the trainer, the curriculum and the rewards read."""
    text = prompts.write(problem)
    return {
        "prompt": text,
        "prompt_ids": prompts.encode(text),
        "difficulty": problem.difficulty,
        "source": problem.source,
        "check": problem.check,
        "gold": json.dumps(problem.gold),
        "place": settings.place,
        "prefill": settings.prefill,
    }


def _make_trainer(
    config: RunConfig,
    attempt: Attempt,
    options: Options,
    team: Team,
    meter: "PhaseMeter",
    model: "PreTrainedModel",
    strategy: Strategy,
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[dict[str, Any]],
) -> "EfficientGRPOTrainer":
    from datasets import Dataset

    from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
    from efficient_rl.training.settings import grpo_arguments

    sharded = options.sharding == "fsdp" and team.size > 1
    return EfficientGRPOTrainer(
        model=model,
        reward_funcs=[term.function.build() for term in config.reward],
        args=grpo_arguments(config, attempt.checkpoints, options.checkpoint_steps, team.size, options.micro_batches),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=tokenizer,
        strategy=strategy,
        problems=rows,
        curriculum=config.curriculum.build(),
        meter=meter,
        optimizations=Optimizations(trunk_cache_bytes=config.grpo.trunk_cache_mib << 20),
        sharded=sharded,
    )


def _evaluation_metrics(found: Evaluations) -> dict[str, float]:
    """The run's own task as eval/..., further sets as eval/<set>/..."""
    own, *others = found.items()
    metrics = own[1].metrics()
    for name, evaluation in others:
        metrics |= evaluation.metrics(f"eval/{name}/")
    return metrics


def _summary(found: Evaluations) -> dict[str, Any]:
    """The own task's evaluation, with those of further sets under `sets`."""
    own, *others = found.items()
    return asdict(own[1]) | {"sets": {name: asdict(evaluation) for name, evaluation in others}}


def _publish(
    config: RunConfig,
    attempt: Attempt,
    options: Options,
    before: Evaluations,
    after: Evaluations,
    parameters: tuple[int, int],
    seconds: float,
) -> RunResult:
    """Write the result. What spans attempts (reward, seconds, bytes, tokens) is read back from the metrics."""
    lines = [row["metrics"] for row in RunDirectory(attempt.folder).metrics()]
    rewards = [line["train/reward"] for line in lines if "train/reward" in line]
    active = [line["params/active"] for line in lines if "params/active" in line]
    phase_seconds = {name: sum(values) for name, values in _columns(lines, "time/", "_seconds").items() if name != "step"}
    bytes_by_name = {name: int(max(values)) for name, values in _columns(lines, "memory/", "_bytes").items()}
    tail = rewards[-max(1, len(rewards) // 10) :]
    result = RunResult(
        config_hash=config.config_hash,
        model=config.model.name,
        strategy=config.strategy.name,
        seed=config.seed,
        trainable_params=parameters[0],
        mean_active_params=sum(active) / max(1, len(active)),
        total_params=parameters[1],
        accuracy=after[config.task.name].accuracy,
        accuracy_before=before[config.task.name].accuracy,
        evaluation=_summary(after),
        evaluation_before=_summary(before),
        final_reward=sum(tail) / max(1, len(tail)),
        peak_memory_bytes={n.removesuffix("_peak"): size for n, size in bytes_by_name.items() if n.endswith("_peak")},
        memory_parts_bytes={n: size for n, size in bytes_by_name.items() if not n.endswith("_peak")},
        phase_seconds=phase_seconds,
        train_seconds=sum(line.get("time/step_seconds", 0.0) for line in lines),
        total_seconds=seconds,
        steps=config.grpo.max_steps,
        tokens=int(max((line.get("train/tokens", 0.0) for line in lines), default=0.0)),
        code_version=options.code_version,
        attempt=attempt.number,
        finished_at=time.time(),
    )
    attempt.finish(result)
    return result


def _columns(lines: list[dict[str, float]], prefix: str, suffix: str) -> dict[str, list[float]]:
    """The values of all metrics that have both, under the name between them."""
    columns: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line.items():
            if name.startswith(prefix) and name.endswith(suffix):
                columns.setdefault(name[len(prefix) : -len(suffix)], []).append(value)
    return columns


def quiet_libraries() -> None:
    """One thread, no telemetry, no progress bars, no fork warnings: what every run wants from its libraries."""
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRL_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "KINETO_LOG_LEVEL": "99",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
