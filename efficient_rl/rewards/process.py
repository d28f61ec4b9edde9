"""Process supervision: a reward for every step of the reasoning, advantages for tokens."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat, starmap
from operator import attrgetter, itemgetter
from statistics import mean, stdev
from typing import Any

from efficient_rl.rewards.columns import Column, Completions, Texts, positions, reasoning, whole_texts
from efficient_rl.rewards.equations import MAX_CHARACTERS, find_equations
from efficient_rl.rewards.verify import DEFAULT_PLACE, has_verdict, is_correct

PART = re.compile(r"[^;\n]+")
EPSILON = 1e-4
PART_CHARACTERS = 40  # what looking at one costs beside its own


@dataclass(frozen=True)
class StepRewards:
    """Rewards of steps, judged by arithmetic (DeepSeekMath, arXiv:2402.03300, section 4.1.3).

    A step is a line, or a part of one between semicolons, with at least one equation that no
    earlier step wrote: 1 if all its equations are true, else 0; the first 40,000 characters of such
    parts count. The last step is the answer: 1 if it is right, else 0. DeepSeekMath judges steps
    with a trained model; equations need none. The trainer turns steps into advantages of tokens;
    called as an ordinary reward, it is the mean over the steps.
    """

    __name__ = "process"

    def steps(
        self, completion: str, check: str, gold: Mapping[str, Any], place: str | None = None, prefill: str = ""
    ) -> list[tuple[int, float]]:
        """(end in characters, reward) of each step; the answer ends with the completion.

        Where no answer could match the gold one, the answer is no step.
        """
        found = list(_equation_steps(reasoning(completion)))
        if has_verdict(check, gold):
            right = is_correct(prefill + completion, check, gold, place or DEFAULT_PLACE)
            found.append((len(completion), float(right)))
        return found

    def __call__(
        self, completions: Completions, check: Texts, gold: Texts, place: Column = None, prefill: Column = None, **_: Any
    ) -> list[float | None]:
        """The mean reward of the steps of each completion, in 0 to 1; `gold` is JSON."""
        texts = whole_texts(completions)
        columns = (check, map(json.loads, gold), positions(place, len(texts)), prefill or repeat(""))
        return list(starmap(self._mean, zip(texts, *columns, strict=False)))

    def _mean(self, *row: Any) -> float | None:
        _, check, gold, *_ = row
        return mean(map(itemgetter(1), self.steps(*row))) if has_verdict(check, gold) else None


def _equation_steps(text: str) -> Iterator[tuple[int, float]]:
    seen: set[str] = set()
    budget = MAX_CHARACTERS
    for part in PART.finditer(text):
        if "=" in part[0]:
            budget -= len(part[0]) + PART_CHARACTERS
        if budget < 0:
            return
        found = find_equations(part[0])
        if found.keys() - seen:
            true = all(map(attrgetter("true"), found.values()))
            yield part.start() + len(part[0].rstrip()), float(true)
        seen |= found.keys()


def token_ends(ends: Sequence[int], pieces: Sequence[str], text: str | None = None) -> list[int]:
    """The index of the token that writes the last character of each step.

    `ends` are positions after the steps in the completion's text, `pieces` its decoded tokens, one
    string a token. With `text`, pieces that do not add up to it (special tokens, parts of a
    character, spaces that only the whole has) are aligned to it, and a step that ends with the text
    ends at the last token, so that the end-of-text token shares its advantage. Without tokens all
    ends are 0.
    """
    written = list(accumulate(map(len, pieces))) if text is None else _aligned(pieces, text)
    token = 0
    indices = [0] * len(ends)
    for step in sorted(range(len(ends)), key=lambda step: ends[step]):
        while token < len(pieces) - 1 and written[token] < ends[step]:
            token += 1
        indices[step] = token
        if text is not None and ends[step] >= len(text):
            indices[step] = max(0, len(pieces) - 1)
    return indices


def _aligned(pieces: Sequence[str], text: str) -> list[int]:
    """How much of the text is written after each token; what cannot be found writes nothing."""
    written, position = [], 0
    for piece in pieces:
        core = piece.strip()
        if core and "\ufffd" not in core:
            found = text.find(core, position, position + len(piece) + 16)
            position = found + len(core) if found >= 0 else position
        written.append(position)
    return written


def step_advantages(
    ends: Sequence[Sequence[int]], rewards: Sequence[Sequence[float]], lengths: Sequence[int]
) -> list[list[float]]:
    """Advantages of every token of one group's completions (arXiv:2402.03300, section 4.1.3).

    `ends` and `rewards` hold, for each completion, the token index of each step's last token and
    the step's reward; `lengths` are in tokens. Rewards are normalised by mean and (sample) standard
    deviation + 1e-4 over all steps of the group, 0 where all are equal; the advantage of token t is
    the sum over the steps that end at t or later.
    """
    every = list(chain.from_iterable(rewards))
    center = mean(every) if every else 0.0
    spread = stdev(every) + EPSILON if len(every) > 1 else 1.0
    return [_suffix_sums(*row, center, spread) for row in zip(ends, rewards, lengths, strict=True)]


def _suffix_sums(ends: Sequence[int], rewards: Sequence[float], length: int, center: float, spread: float) -> list[float]:
    at = [0.0] * length
    for end, reward in zip(ends, rewards, strict=True):
        if length and not 0 <= end < length:
            raise ValueError(f"a step ends at token {end} of a completion with {length} tokens; use indices of its tokens")
        if length:
            at[end] += (reward - center) / spread
    return list(accumulate(reversed(at)))[::-1]
