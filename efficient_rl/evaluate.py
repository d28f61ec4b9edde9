"""Measures accuracy on held-out problems: avg@k at the training temperature, maj@k, unbiased pass@k, greedy beside them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import comb, sqrt
from typing import TYPE_CHECKING

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
        named = {
            "accuracy": self.accuracy,
            "accuracy_low": self.low,
            "accuracy_high": self.high,
            "standard_error": self.standard_error,
            "greedy_accuracy": self.greedy_accuracy,
            "majority_accuracy": self.majority_accuracy,
            "pass_at_k": self.pass_at_k,
            **{f"pass_at_{k}": value for k, value in self.pass_at.items()},
            **{f"accuracy_difficulty_{level}": value for level, value in self.by_difficulty.items()},
        }
        if len(self.by_source) > 1:
            named |= {f"accuracy_source_{name}": value for name, value in self.by_source.items()}
        return {prefix + name: value for name, value in named.items()}


@dataclass(frozen=True)
class Examiner:
    """Puts problems to a model and judges its answers, the same random draws in every call.

    `encode` gives a problem's token ids; `prefill` is what the prompt already wrote of the
    completion, `place` where the answer stands. `between` is called after each batch, to stop early
    by raising. The processes of a `group` share the problems; each gets the whole evaluation, the
    one that a single process makes.
    """

    tokenizer: "PreTrainedTokenizerBase"
    encode: Callable[[Problem], list[int]]
    stop_ids: Sequence[int]
    sampling: "SamplingSettings"
    samples: int
    place: str
    prefill: str = ""
    between: Callable[[], None] = lambda: None
    group: ProcessGroup = SINGLE_PROCESS

    def evaluate(self, model: "PreTrainedModel", problems: Sequence[Problem], seed: int) -> Evaluation:
        """Score `samples` completions and a greedy one for every problem; `seed` is only written down."""
        prompts = [self.encode(problem) for problem in problems]
        greedy, greedy_tokens = self._verdicts(model, problems, prompts, replace(self.sampling, temperature=0.0), 1)
        drawn, tokens = self._verdicts(model, problems, prompts, self.sampling, self.samples)
        right = [sum(verdict for verdict, _ in each) for each in drawn]
        shares = [count / self.samples for count in right]
        error = standard_error(shares)
        low, high = interval(_mean(shares), error, len(shares))
        order, levels = difficulty_levels([problem.difficulty for problem in problems])
        sources = [problem.source for problem in problems]
        ks = [2**power for power in range(self.samples.bit_length()) if 2**power <= self.samples]
        return Evaluation(
            accuracy=_mean(shares),
            low=low,
            high=high,
            standard_error=error,
            greedy_accuracy=_mean([each[0][0] for each in greedy]),
            majority_accuracy=_mean([majority(each) for each in drawn]),
            pass_at_k=_mean([count > 0 for count in right]),
            pass_at={str(k): _mean([pass_at(k, self.samples, count) for count in right]) for k in ks},
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
    ) -> tuple[list[list[tuple[bool, str | None]]], int]:
        """For every problem whether each of its completions is right, and its answer; and the number of all tokens."""
        width = max(1, ROWS_AT_ONCE // samples) * self.group.size
        verdicts: list[list[tuple[bool, str | None]]] = []
        tokens = 0
        for first in range(0, len(problems), width):
            some = min(width, len(problems) - first)
            start, end = (first + some * rank // self.group.size for rank in (self.group.rank, self.group.rank + 1))
            own = self._completions(model, prompts[start:end], start, sampling, samples)
            texts = [self.prefill + text for text in self.tokenizer.batch_decode(own, skip_special_tokens=True)]
            judged = [
                [self._judge(text, problem) for text in texts[index * samples : (index + 1) * samples]]
                for index, problem in enumerate(problems[start:end])
            ]
            for theirs, count in self.group.all_gather((judged, sum(map(len, own)))):
                verdicts += theirs
                tokens += count
            self.between()
        return verdicts, tokens

    def _completions(
        self, model: "PreTrainedModel", prompts: Sequence[list[int]], start: int, sampling: "SamplingSettings", samples: int
    ) -> list[list[int]]:
        """`samples` completions of every prompt; `start` is the first one's place among all problems."""
        from efficient_rl.training.sampler import draws, sample

        if not prompts:
            return []
        rows, most = len(prompts) * samples, sampling.max_new_tokens
        uniform = draws([EVALUATION_SEED], rows, most, start * samples) if sampling.temperature > 0 else None
        batch = [ids for ids in prompts for _ in range(samples)]
        return sample(model, batch, sampling, self.stop_ids, self.tokenizer.pad_token_id, uniform)

    def _judge(self, text: str, problem: Problem) -> tuple[bool, str | None]:
        return is_correct(text, problem.check, problem.gold, self.place), extract_answer(text, self.place)


def pass_at(k: int, samples: int, right: int) -> float:
    """Chance that one of k completions is right, estimated without bias from `right` of `samples` (arXiv:2107.03374)."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority(verdicts: Sequence[tuple[bool, str | None]]) -> bool:
    """Whether the most frequent answer is right; equal numbers count together, a tie goes to the answer given first."""
    answers = [(right, _vote(answer)) for right, answer in verdicts if answer is not None]
    if not answers:
        return False
    winner = Counter(answer for _, answer in answers).most_common(1)[0][0]
    return next(right for right, answer in answers if answer == winner)


def _vote(answer: str) -> str:
    number = parse_number(answer)
    return str(number) if number is not None else "".join(answer.split()).lower()


def standard_error(shares: Sequence[float]) -> float:
    """Error of the mean over problems, each with its share of right completions."""
    mean = _mean(shares)
    return sqrt(sum((share - mean) ** 2 for share in shares) / max(1, len(shares) - 1) / len(shares))


def interval(mean: float, error: float, problems: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share with this standard error; where the error is 0, as if each problem were one draw."""
    draws = mean * (1 - mean) / error**2 if error > 0 else problems
    centre = (mean + Z**2 / (2 * draws)) / (1 + Z**2 / draws)
    half = Z / (1 + Z**2 / draws) * sqrt(mean * (1 - mean) / draws + Z**2 / (4 * draws**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def difficulty_levels(difficulties: Sequence[float]) -> tuple[list[str], list[str]]:
    """Names of all levels from easy to hard, and each problem's: its difficulty, or a fifth of them where there are many."""
    distinct = sorted(set(difficulties))
    if len(distinct) <= MOST_LEVELS:
        return [f"{value:g}" for value in distinct], [f"{value:g}" for value in difficulties]
    ordered = sorted(difficulties)
    tops = sorted({ordered[(part * len(ordered) - 1) // FIFTHS] for part in range(1, FIFTHS + 1)})
    names = [f"up_to_{top:.6g}" for top in tops]
    return names, [names[bisect_left(tops, value)] for value in difficulties]


def _by(order: Sequence[str], parts: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    """Mean share of each part of the problems, in the order given."""
    members: dict[str, list[float]] = {part: [] for part in order}
    for part, share in zip(parts, shares, strict=True):
        members[part].append(share)
    return {part: _mean(of) for part, of in members.items()}
