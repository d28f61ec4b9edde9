"""Third-party rewards by import path, such as TRL's and Open-R1's functions."""

import importlib
import inspect
import json
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from efficient_rl.errors import require
from efficient_rl.rewards.columns import Completions, whole_texts

DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)


@dataclass(frozen=True)
class Imported:
    """The reward function that `path` names, `package.module.function`, called as by TRL.

    With `arguments` the path names a function that returns the reward function for them, such as
    TRL's `get_soft_overlong_punishment`. With `messages` completions become lists of one assistant
    message, as the functions of TRL and Open-R1 expect. A function with a parameter `solution` gets
    `gold[solution]`, or no verdict (None) where the problem has none. With `whole` the beginning
    that the prompt already wrote of the completion is put in front.

    The path is resolved at the first call, since planning imports none of these packages.
    """

    path: str
    messages: bool = True
    solution: str = "answer"
    whole: bool = True
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        bound = "must be a dotted path such as trl.rewards.think_format_reward"
        require(isinstance(self.path, str) and bool(DOTTED.fullmatch(self.path)), "reward path", self.path, bound)

    @property
    def __name__(self) -> str:
        """The function's own name, for metrics."""
        return self.path.rpartition(".")[2].removeprefix("get_")

    def resolve(self) -> Callable[..., Any]:
        """The function itself; ImportError, AttributeError or TypeError if the path names none."""
        return _resolved(self.path, None if self.arguments is None else json.dumps(dict(self.arguments)))

    def __call__(
        self, completions: Completions, gold: list[str] | None = None, prefill: list[str] | None = None, **columns: Any
    ) -> list[float | None]:
        """One value a completion; other columns are passed on if the function takes them."""
        function = self.resolve()
        texts = whole_texts(completions, prefill if self.whole else None)
        columns |= {"completions": list(map(_message, texts)) if self.messages else texts, "gold": gold}
        parameters = inspect.signature(function).parameters
        judged: Sequence[int] = range(len(texts))
        if "solution" in parameters:
            solutions = [json.loads(answer).get(self.solution) for answer in gold or ["{}"] * len(texts)]
            judged = [row for row, solution in enumerate(solutions) if solution is not None]
            columns["solution"] = list(map(str, solutions))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            columns = {name: values for name, values in columns.items() if name in parameters}
        return self._spread(function, columns, judged, len(texts))

    def _spread(
        self, function: Callable[..., Any], given: Mapping[str, Any], judged: Sequence[int], count: int
    ) -> list[float | None]:
        """Call the function on the judged rows; None for the others."""
        values: list[float | None] = [None] * count
        if not judged:
            return values
        rows = dict(given)
        for name, column in given.items():
            if isinstance(column, list) and len(column) == count:
                rows[name] = list(map(column.__getitem__, judged))
        found = list(function(**rows))
        if len(found) != len(judged):
            raise ValueError(
                f"{self.path} returned {len(found)} values for {len(judged)} completions; it must return one each"
            )
        for row, value in zip(judged, found, strict=True):
            values[row] = self._checked(value)
        return values

    def _checked(self, value: Any) -> float | None:
        if value is None:
            return None
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{self.path} returned {value!r}; a reward must be a finite number or None")
        return float(value)


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@lru_cache(maxsize=64)
def _resolved(path: str, arguments: str | None) -> Callable[..., Any]:
    """The function that a path names, or that the function there returns for arguments (JSON)."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ImportError(f"reward path {path!r}: {error}; install the package that has {module}") from error
    except AttributeError as error:
        raise AttributeError(f"reward path {path!r}: {module} has no {name!r}; name one of its functions") from error
    if arguments is not None:
        found = found(**json.loads(arguments))
    if not callable(found):
        raise TypeError(f"reward path {path!r} names {found!r}, which cannot be called; name a function")
    return found  # type: ignore[no-any-return]
