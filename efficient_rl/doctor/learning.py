"""Checks that a run can learn: a right answer earns more, groups of one step differ."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.datasets import HELD_OUT_SEED
from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.doctor.prompt import Form, form_of
from efficient_rl.errors import ConfigError
from efficient_rl.preflight.hub import is_here
from efficient_rl.rewards.format import TAGS
from efficient_rl.tasks.problem import Problem

PROMPTS = 8
WRONG = "no idea"
ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)  # of user's functions
REPEATED_SHARE = 0.5
CLIPPED_SHARE = 0.9
FORMS = {
    "tags": "<think> {steps} </think> <answer> {answer} </answer>",
    "boxed": "{steps} so the answer is \\boxed{{{answer}}}",
    "tags_or_boxed": "<think> {steps} </think> <answer> {answer} </answer>",
    "first_line": "{answer}\n",
    "hash": "{steps}\n#### {answer}",
}


def check_golden(run: RunConfig) -> list[Finding]:
    """Check that right answers in the form that the prompt asks for earn more than wrong ones."""
    try:
        drawn = run.task.build().problems("train", PROMPTS, HELD_OUT_SEED)
    except ValueError as error:
        why, remedy = "every run fails when it loads it", "what the message names, or another task=..."
        return [Finding("failure", "task", f"task={run.task.name}: {error}", why, remedy)]
    problems = list(filter(attrgetter("solution"), drawn))
    if not problems:
        return [ok("reward", f"task={run.task.name} knows no solutions to try out")]
    form = _form(run)
    prefill = form.prefill if form else run.prompt.prefill
    golden = [behind(prefill, text) for text in golden_completions(run.prompt.place, problems)]
    try:
        if form:
            golden = list(map(form.read, golden))
        right, wrong = (total_reward(run, problems, texts, prefill) for texts in (golden, [WRONG] * len(problems)))
    except ERRORS as error:
        names = ", ".join(term.function.name for term in run.reward)
        what = f"the reward ({names}) fails on a right answer: {type(error).__name__}: {error}"
        return [Finding("failure", "reward", what, "the first step of every run fails", "fix the function that raises")]
    if right <= wrong:
        what = f"a right answer earns {right:.2f} and {WRONG!r} earns {wrong:.2f}, e.g. for {golden[0]!r}"
        why = "the reward does not read the answer where the prompt puts it: nothing would be learned"
        remedy = f"prompt=... or reward=... that agree on the place of the answer (prompt.place={run.prompt.place})"
        return [Finding("failure", "reward", what, why, remedy)]
    return [ok("reward", f"a right answer earns {right:.2f}, a wrong one {wrong:.2f}")]


def _form(run: RunConfig) -> Form | None:
    """What the run's tokenizer makes of completions; None where it is not here, or does not fit."""
    try:
        return form_of(run) if is_here(run.model) else None
    except ConfigError:  # `check_prompt` says so
        return None


def golden_completions(place: str, problems: Sequence[Problem]) -> list[str]:
    """Right answers to solved problems, whole, in the form that a place asks for."""
    form = FORMS[place]
    return [form.format(steps=" ".join(problem.steps), answer=problem.solution) for problem in problems]


def behind(prefill: str, text: str) -> str:
    """The rest of a whole completion behind the last tag that the prompt has already written."""
    for tag in reversed(TAGS):
        if tag in prefill and tag in text:
            return text.partition(tag)[2]
    return text


def total_reward(run: RunConfig, problems: Sequence[Problem], texts: Sequence[str], prefill: str = "") -> float:
    """The mean weighted reward of completions; what a term gives for tokens is added up."""
    names = ("prompts", "check", "gold", "difficulty", "source")
    read = attrgetter("question", "check", "gold", "difficulty", "source")
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*map(read, problems), strict=True)), strict=True))
    columns |= {
        "completions": list(texts),
        "completion_ids": [list(range(len(text.split()))) for text in texts],
        "gold": list(map(json.dumps, columns["gold"])),
        "place": [run.prompt.place] * len(problems),
        "prefill": [prefill] * len(problems),
    }
    total = 0.0
    for term in run.reward:
        values = list(map(_amount, term.function.build()(**columns)))
        total += term.weight * sum(values) / len(values)
    return total


def _amount(value: Any) -> float:
    if value is None:
        return 0.0
    return sum(map(_amount, value)) if isinstance(value, list | tuple) else float(value)


def check_probe(run: RunConfig, seconds: float) -> list[Finding]:
    """Do one step on eight prompts in a process of its own, and judge what the model wrote."""
    from efficient_rl.config.run_options import Options
    from efficient_rl.launch.local import LocalLauncher
    from efficient_rl.launch.worker import Job
    from efficient_rl.rundir.directory import RunDirectory
    from efficient_rl.rundir.state import RunState

    probe = _small(run)
    with tempfile.TemporaryDirectory(prefix="efficient-rl-doctor-") as name:
        folder = Path(name) / probe.config_hash
        launcher = LocalLauncher(workers=1)
        job = Job(folder, to_dict(probe), Options(checkpoint_steps=10**6, code_version="doctor"))
        (handle,) = launcher.launch([job])
        deadline = time.monotonic() + seconds
        while not handle.state.ended and time.monotonic() < deadline:
            launcher.poll(0.1)
        if not handle.state.ended:
            launcher.kill()
            what = f"one step on {PROMPTS} prompts took longer than {seconds:.0f} s"
            return [Finding("warning", "probe", what, "it could not be tried out", "--probe-seconds=600, or --no-probe")]
        record = RunDirectory(folder)
        if handle.state is not RunState.FINISHED:
            error = handle.failure.error if handle.failure else f"exit code {handle.exit_code}"  # type: ignore[attr-defined]
            why = "the run would end the same way"
            return [Finding("failure", "probe", f"one step fails: {error}", why, "fix what the error names")]
        (metrics,) = [row["metrics"] for row in record.metrics() if "train/reward" in row["metrics"]]
        lines = (folder / "completions.jsonl").read_text().splitlines()
        return judge_probe(metrics, [json.loads(line)["completion"] for line in lines])


def _small(run: RunConfig) -> RunConfig:
    grpo = replace(
        run.grpo,
        max_steps=1,
        per_device_train_batch_size=run.grpo.num_generations,
        gradient_accumulation_steps=PROMPTS,
        train_problems=min(run.grpo.train_problems, 256),
    )
    return replace(run, grpo=grpo, eval=replace(run.eval, problems=1, samples=1, steps=0, sets=()))


def judge_probe(metrics: Mapping[str, float], completions: Sequence[str]) -> list[Finding]:
    """What the metrics of one step, and some of its completions, say about the steps to come."""
    findings = []
    reward, flat = metrics["train/reward"], metrics.get("train/frac_zero_std", 0.0)
    if flat >= 1.0:
        what = f"none of {PROMPTS} groups has completions that earn differently (mean reward {reward:.2f})"
        why = "GRPO learns from differences inside a group: there is nothing to learn from"
        remedy = "easier problems (harder ones if all are right), a stronger model, or more grpo.num_generations"
        findings.append(Finding("warning", "probe", what, why, remedy))
    elif flat <= 0.0:
        findings.append(
            Finding("warning", "probe", f"all of {PROMPTS} groups have completions that earn differently",
                    "a reward that is never the same may be noise (length, format) instead of the answer",
                    "look at the reward's terms: python -m efficient_rl.sweep ... --cfg job")
        )  # fmt: skip
    worst = max(completions, key=repeated_share, default="")
    if (share := repeated_share(worst)) > REPEATED_SHARE:
        what = f"a completion is {share:.0%} one repeated piece: {worst[:40]!r}"
        why = "broken weights, data type or attention write such text, and training on it is lost time"
        findings.append(Finding("warning", "probe", what, why, "model.dtype=float32 model.attn_implementation=eager"))
    if (clipped := metrics.get("train/completion_clipped_ratio", 0.0)) > CLIPPED_SHARE:
        what = f"{clipped:.0%} of the completions were cut off at grpo.max_completion_length"
        findings.append(
            Finding("warning", "probe", what, "their answers are never seen", "a larger grpo.max_completion_length")
        )
    return findings or [ok("probe", f"{1 - flat:.0%} of {PROMPTS} groups have a signal, mean reward {reward:.2f}")]


def repeated_share(text: str) -> float:
    """The share of the most frequent character in a text; 0 for texts too short to say."""
    letters = "".join(text.split())
    if len(letters) < 16:
        return 0.0
    return Counter(letters).most_common(1)[0][1] / len(letters)
