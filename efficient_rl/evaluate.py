"""Measures accuracy on held-out problems: avg@k, maj@k, unbiased pass@k, and greedy."""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from math import comb, sqrt
from operator import itemgetter
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from efficient_rl.decoding import CompletionDecoder
from efficient_rl.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from efficient_rl.rewards.verify import extract_answer, is_correct, parse_number
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from efficient_rl.training.sampler import SamplingSettings

ROWS_AT_ONCE = 512  # in each process
EVALUATION_SEED = 0
MOST_LEVELS, FIFTHS = 10, 5
Z = 1.959964  # of a two-sided 95% interval
MEASURES = ("accuracy", "standard_error", "greedy_accuracy", "majority_accuracy", "pass_at_k")

Verdict = tuple[bool, str | None]  # whether a completion is right, and its answer
IS_RIGHT = itemgetter(0)


@dataclass(frozen=True)
class Evaluation:
    """What one model does on one set of held-out problems.

    `accuracy` is pass@1 estimated as avg@k; `low` and `high` bound its 95% interval over problems,
    `standard_error` is its error over problems; both for this one model. `majority_accuracy` is
    maj@k, `pass_at` the unbiased pass@k by k, and `pass_at_k` that of all `samples`. `right` counts
    the right samples of every problem, in the order of the problems; `seed` is the one that they
    were drawn with.
    """

    accuracy: float
    low: float
    high: float
    standard_error: float
    greedy_accuracy: float
    majority_accuracy: float
    pass_at_k: float
    pass_at: dict[str, float]
    by_difficulty: dict[str, float]
    by_source: dict[str, float]
    problems: int
    samples: int
    right: list[int]
    seed: int
    tokens: int

    def metrics(self, prefix: str = "eval/") -> dict[str, float]:
        """The numbers by their names in the log."""
        named = {name: getattr(self, name) for name in MEASURES}
        named |= {"accuracy_low": self.low, "accuracy_high": self.high}
        named |= _prefixed("pass_at_", self.pass_at) | _prefixed("accuracy_difficulty_", self.by_difficulty)
        if len(self.by_source) > 1:
            named |= _prefixed("accuracy_source_", self.by_source)
        return _prefixed(prefix, named)


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in values.items()}


Evaluations = dict[str, Evaluation]  # by evaluation set; the run's own task first


def metrics_of(found: Evaluations) -> dict[str, float]:
    """The run's own task as eval/..., further sets as eval/<set>/..."""
    own, *others = found.items()
    metrics = own[1].metrics()
    for name, evaluation in others:
        metrics |= evaluation.metrics(f"eval/{name}/")
    return metrics


def summary(found: Evaluations) -> dict[str, Any]:
    """The own task's evaluation, with those of further sets under `sets`."""
    own, *others = found.items()
    return asdict(own[1]) | {"sets": {name: asdict(evaluation) for name, evaluation in others}}


def read_evaluations(path: Path) -> Evaluations | None:
    """Evaluations from a file; None where it is missing or damaged."""
    try:
        return {each: Evaluation(**values) for each, values in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model on held-out problems, with the same random draws in every call.

    `encode` gives a problem's token ids; `prefill` is what the prompt already wrote of the
    completion, `place` where the answer stands. `decode` should be the trainer's, so that both read
    the same text; None knows no rewards. `between` is called after each batch, to stop early by
    raising. The processes of a `group` share the problems; each gets the whole evaluation, the
    one that a single process makes.
    """

    tokenizer: "PreTrainedTokenizerBase"
    encode: Callable[[Problem], list[int]]
    stop_ids: Sequence[int]
    sampling: "SamplingSettings"
    samples: int
    place: str
    prefill: str = ""
    decode: CompletionDecoder | None = None
    between: Callable[[], None] = lambda: None
    group: ProcessGroup = SINGLE_PROCESS

    def evaluate(self, model: "PreTrainedModel", problems: Sequence[Problem], seed: int) -> Evaluation:
        """Score `samples` completions and a greedy one of every problem; `seed` is only noted."""
        prompts = list(map(self.encode, problems))
        greedy, greedy_tokens = self._verdicts(model, problems, prompts, replace(self.sampling, temperature=0.0), 1)
        drawn, tokens = self._verdicts(model, problems, prompts, self.sampling, self.samples)
        right = [sum(map(IS_RIGHT, each)) for each in drawn]
        shares = [count / self.samples for count in right]
        accuracy, error = fmean(shares), standard_error(shares)
        low, high = interval(accuracy, error, len(shares))
        order, levels = difficulty_levels([problem.difficulty for problem in problems])
        sources = [problem.source for problem in problems]
        ks = [2**power for power in range(self.samples.bit_length())]
        pass_at_ks = {str(k): fmean(map(partial(pass_at, k, self.samples), right)) for k in ks}
        return Evaluation(
            accuracy=accuracy,
            low=low,
            high=high,
            standard_error=error,
            greedy_accuracy=fmean(each[0][0] for each in greedy),
            majority_accuracy=fmean(map(majority, drawn)),
            pass_at_k=fmean(map(bool, right)),
            pass_at=pass_at_ks,
            by_difficulty=_by(order, levels, shares),
            by_source=_by(sorted(set(sources)), sources, shares),
            problems=len(problems),
            samples=self.samples,
            right=right,
            seed=seed,
            tokens=greedy_tokens + tokens,
        )

    def _verdicts(
        self,
        model: "PreTrainedModel",
        problems: Sequence[Problem],
        prompts: Sequence[list[int]],
        sampling: "SamplingSettings",
        samples: int,
    ) -> tuple[list[list[Verdict]], int]:
        """The verdicts on every problem's completions, and the number of all tokens."""
        width = max(1, ROWS_AT_ONCE // samples) * self.group.size
        decode = self.decode or CompletionDecoder(self.tokenizer, ())
        verdicts: list[list[Verdict]] = []
        tokens = 0
        for first in range(0, len(problems), width):
            some = min(width, len(problems) - first)
            start = first + some * self.group.rank // self.group.size
            end = first + some * (self.group.rank + 1) // self.group.size
            own = self._completions(model, prompts[start:end], start, sampling, samples)
            texts = iter(decode(own))
            judged = [self._judged(problem, islice(texts, samples)) for problem in problems[start:end]]
            for theirs, count in self.group.all_gather((judged, sum(map(len, own)))):
                verdicts += theirs
                tokens += count
            self.between()
        return verdicts, tokens

    def _completions(
        self, model: "PreTrainedModel", prompts: Sequence[list[int]], start: int, sampling: "SamplingSettings", samples: int
    ) -> list[list[int]]:
        """`samples` completions of every prompt; `start`: index of the first among all problems."""
        from efficient_rl.training.generation import complete
        from efficient_rl.training.sampler import draws

        if not prompts:
            return []
        rows, most = len(prompts) * samples, sampling.max_new_tokens
        uniform = draws([EVALUATION_SEED], rows, most, start * samples) if sampling.temperature > 0 else None
        batch = [ids for ids in prompts for _ in range(samples)]
        return complete(model, batch, sampling, self.stop_ids, self.tokenizer.pad_token_id, uniform)

    def _judged(self, problem: Problem, completions: Iterable[str]) -> list[Verdict]:
        verdicts = []
        for completion in completions:
            text = self.prefill + completion
            right = is_correct(text, problem.check, problem.gold, self.place)
            verdicts.append((right, extract_answer(text, self.place)))
        return verdicts


def pass_at(k: int, samples: int, right: int) -> float:
    """Chance that one of k is right, without bias from `right` of `samples` (arXiv:2107.03374)."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority(verdicts: Sequence[Verdict]) -> bool:
    """Whether the most frequent answer is right; equal numbers count together, ties by order."""
    votes = {_vote(answer): right for right, answer in reversed(verdicts) if answer is not None}
    if not votes:
        return False
    counts = Counter(_vote(answer) for _, answer in verdicts if answer is not None)
    return votes[counts.most_common(1)[0][0]]


def _vote(answer: str) -> str:
    number = parse_number(answer)
    return "".join(answer.split()).lower() if number is None else str(number)


def standard_error(shares: Sequence[float]) -> float:
    """Error of the mean over problems, each with its share of right completions."""
    return stdev(shares) / sqrt(len(shares)) if len(shares) > 1 else 0.0


def interval(mean: float, error: float, problems: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share with this standard error; if 0, of one draw a problem."""
    draws = mean * (1 - mean) / error**2 if error > 0 else problems
    centre = (mean + Z**2 / (2 * draws)) / (1 + Z**2 / draws)
    half = Z / (1 + Z**2 / draws) * sqrt(mean * (1 - mean) / draws + Z**2 / (4 * draws**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def difficulty_levels(difficulties: Sequence[float]) -> tuple[list[str], list[str]]:
    """Names of all levels from easy to hard, and each problem's: its difficulty, or its fifth."""
    distinct = sorted(set(difficulties))
    if len(distinct) <= MOST_LEVELS:
        return list(map("{:g}".format, distinct)), list(map("{:g}".format, difficulties))
    ordered = sorted(difficulties)
    tops = sorted({ordered[(part * len(ordered) - 1) // FIFTHS] for part in range(1, FIFTHS + 1)})
    names = list(map("up_to_{:.6g}".format, tops))
    return names, [names[bisect_left(tops, value)] for value in difficulties]


def _by(order: Sequence[str], parts: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    """Mean share of each part of the problems, in the order given."""
    members: dict[str, list[float]] = defaultdict(list)
    for part, share in zip(parts, shares, strict=True):
        members[part].append(share)
    return {part: fmean(members[part]) for part in order}
