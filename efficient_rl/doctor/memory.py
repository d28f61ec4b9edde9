"""Checks whether a run fits into memory, and finds the first change that makes it fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.doctor.finding import Finding, counted, ok
from efficient_rl.doctor.machines import Machine
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.preflight.memory import PROCESS_BYTES, estimate_memory
from efficient_rl.sweep.display import bytes_text

if TYPE_CHECKING:
    from efficient_rl.preflight.dry_step import Load, Step

PROMPT_TOKENS = 128  # of a model whose tokenizer is not here
PROMPTS_ENCODED = 64
HEADROOM = 0.9  # the allocator's fragments, CUDA's own context
HOST_BYTES = 1 << 30  # of a process that trains on a GPU: Python, its libraries, CUDA's own part
ROWS_EVALUATED = 512
FEWEST_EVALUATED = 16
SMALLER_STRATEGIES = ("lora", "last_k")
GPU_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)  # as they are sold
VLLM_SHARE = 0.3  # of a GPU, which TRL lets vLLM reserve beside the trainer
WHY = "the run dies of it, perhaps only after an hour"
Measure = Callable[[RunConfig], "Step"]


@dataclass(frozen=True)
class Verdict:
    """What was found, and the bytes that it rests on."""

    finding: Finding
    step: "Step"


def prompt_tokens(run: RunConfig) -> int:
    """Tokens of the longest of some prompts, where the tokenizer is on this machine."""
    if run.model.folder is None:
        return PROMPT_TOKENS
    from efficient_rl.datasets import load_splits
    from efficient_rl.models import load_tokenizer
    from efficient_rl.prompts import Prompts

    few = replace(run, grpo=replace(run.grpo, train_problems=min(run.grpo.train_problems, PROMPTS_ENCODED)))
    problems = load_splits(few)
    prompts = Prompts(run.model, run.prompt, load_tokenizer(run.model), problems.examples)
    return max(len(prompts.encode(prompts.write(problem))) for problem in problems.train)


def load_of(run: RunConfig, machine: Machine, prompt: int) -> "Load":
    """What each process does at a time; ConfigError where the batch cannot be shared."""
    from efficient_rl.preflight.dry_step import Load
    from efficient_rl.training.settings import split_batch

    grpo = run.grpo
    split = split_batch(grpo, machine.processes, 1)
    rows = split.get("per_device_train_batch_size", grpo.per_device_train_batch_size)
    passes = split.get("gradient_accumulation_steps", grpo.gradient_accumulation_steps)
    evaluated = min(ROWS_EVALUATED, -(-run.eval.problems // machine.processes) * run.eval.samples)
    sampled = rows * passes if grpo.sampler == "own" else 0
    return Load(
        rows, passes, sampled, evaluated, prompt, grpo.max_completion_length, grpo.num_generations,
        grpo.gradient_checkpointing, machine.sharded and machine.processes > 1,
    )  # fmt: skip


def measured(run: RunConfig, machine: Machine, prompt: int) -> "Step":
    """The bytes of one step in each process; OSError without the model's configuration."""
    from efficient_rl.preflight.dry_step import dry_step

    step = dry_step(run, load_of(run, machine, prompt), run.model.half_products(machine.on_gpu, machine.half))
    if not (machine.sharded and machine.processes > 1):
        return step
    shared = ("parameters", "optimizer_state", "reference")
    parts = {name: ceil(getattr(step, name) / machine.processes) for name in shared}
    return replace(step, **parts)


def first_fit(run: RunConfig, available_bytes: float, measure: Measure) -> tuple[str, "Step"] | None:
    """The first overrides, in the order of `changes`, with which the run fits, and its need."""
    overrides = dict[str, object]()
    changed, before = run, measure(run)
    for values, changed in changes(run, also_evaluation=before.held + before.evaluating > available_bytes):
        overrides |= values
        guess = _scaled(before, run, changed)
        if guess is not None and guess > available_bytes:
            continue
        try:
            after = measure(changed)
        except ConfigError:  # such a batch cannot be shared by the processes
            continue
        if after.peak <= available_bytes:
            return " ".join(f"{name}={str(value).lower()}" for name, value in overrides.items()), after
    return None


def _scaled(before: "Step", run: RunConfig, changed: RunConfig) -> float | None:
    """The least that a run needs which differs in the rows of a pass alone; else None."""
    rows, passes = changed.grpo.per_device_train_batch_size, changed.grpo.gradient_accumulation_steps
    same = replace(run.grpo, per_device_train_batch_size=rows, gradient_accumulation_steps=passes)
    if replace(run, grpo=same) != changed:
        return None
    share = rows / run.grpo.per_device_train_batch_size
    held = before.held
    return held + max(share * (before.backward - before.gradients), before.sampling, before.evaluating)


def changes(run: RunConfig, also_evaluation: bool) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    """Overrides, and the run with these and all before them; those that cost only time first."""

    def grpo(**values: Any) -> tuple[dict[str, Any], RunConfig]:
        nonlocal run
        run = replace(run, grpo=replace(run.grpo, **values))
        return {f"grpo.{name}": value for name, value in values.items()}, run

    while also_evaluation and run.eval.problems > FEWEST_EVALUATED:
        run = replace(run, eval=replace(run.eval, problems=run.eval.problems // 2))
        yield {"eval.problems": run.eval.problems}, run
    while run.grpo.per_device_train_batch_size % 2 == 0:
        half = run.grpo.per_device_train_batch_size // 2
        yield grpo(per_device_train_batch_size=half, gradient_accumulation_steps=2 * run.grpo.gradient_accumulation_steps)
    if not run.grpo.gradient_checkpointing:
        yield grpo(gradient_checkpointing=True)
    if run.grpo.beta:
        yield grpo(beta=0.0)
    for name in SMALLER_STRATEGIES:
        if name != run.strategy.name:
            run = replace(run, strategy=parse_run(expand([f"strategy={name}"])[0]).strategy)
            yield {"strategy": name}, run
    while run.grpo.max_completion_length > 1:
        yield grpo(max_completion_length=run.grpo.max_completion_length // 2)


def check_memory(run: RunConfig, machine: Machine) -> Verdict:
    """Whether the run fits; where it does not, the first change with which it would."""
    tokens = prompt_tokens(run)
    step = measured(run, machine, tokens)
    base = 0 if machine.on_gpu else PROCESS_BYTES
    what = f"model={run.model.name} strategy={run.strategy.name} needs at most {_in_words(step, base)}"
    usual = estimate_memory(run)
    if usual is not None:
        what += f", probably {bytes_text(usual.training)} of tensors at the peak of a step"
    if machine.available_bytes is None:
        return Verdict(_smallest_gpu(what, step), step)
    share = HEADROOM
    if run.grpo.sampler == "vllm_colocate":
        share -= VLLM_SHARE
    room = share * machine.available_bytes
    has = f"{machine.name} has {bytes_text(machine.available_bytes)}"
    if "processes" in machine.name:
        has += " each"
    if base + step.peak <= room:
        return Verdict(ok("memory", f"{what}; {has}"), step)
    change = first_fit(run, room - base, lambda changed: measured(changed, machine, tokens))
    remedy = "a smaller model (model=...)"
    if change:
        remedy = f"{change[0]} (then {bytes_text(base + change[1].peak)})"
    return Verdict(Finding("failure", "memory", f"{what}, and {has}", WHY, remedy), step)


def _smallest_gpu(what: str, step: "Step") -> Finding:
    """For nodes that cannot be seen from here: the smallest GPU that is sold on which it fits."""
    for size in GPU_GIB:
        if step.peak <= HEADROOM * size * 2**30:
            return ok("memory", f"{what}: fits a GPU of {size} GiB")
    remedy = "grpo.per_device_train_batch_size=... (with more grpo.gradient_accumulation_steps), launcher.sharding=fsdp"
    return Finding("warning", "memory", f"{what}: more than a GPU of {GPU_GIB[-1]} GiB has", WHY, remedy)


def check_loading(name: str, step: "Step", launcher: SlurmLauncher) -> list[Finding]:
    """Whether a node's memory, beside its GPUs', holds the weights that every process loads."""
    if not launcher.gpus_per_node:
        return []
    here = min(launcher.at_once, launcher.runs_per_job) * max(1, launcher.processes_per_run // launcher.nodes)
    needed = here * (HOST_BYTES + step.parameters)
    if needed <= launcher.mem_gb * 2**30:
        return []
    loaded = f"load {bytes_text(needed)} into launcher.mem_gb={launcher.mem_gb:g}"
    what = f"{name}: {counted(here, 'process')} of a node {loaded}"
    remedy = f"launcher.mem_gb={ceil(needed / HEADROOM / 2**30)}"
    return [Finding("failure", "memory", what, "Slurm kills what exceeds its memory", remedy)]


def _in_words(step: "Step", base: int) -> str:
    """The peak, and what holds a twentieth of it or more."""
    phases = {"training": step.backward, "sampling": step.sampling, "evaluation": step.evaluating}
    phase, most = max(phases.items(), key=itemgetter(1))
    parts = {"libraries": base, "weights": step.parameters, "optimizer": step.optimizer_state}
    parts |= {"reference": step.reference, "trunk": step.trunk}
    if phase == "training":
        parts["gradients"], parts["activations"] = step.gradients, step.activations
        parts["backward pass"] = most - step.gradients - step.activations
    else:
        parts["cache"] = most
    peak = base + step.peak
    named = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items() if size >= peak / 20)
    return f"{bytes_text(peak)} in {phase} ({named})"
