"""A strategy and a reward of one's own, as users write them."""

from typing import Any

from efficient_rl.strategies.static import FirstK

VERDICT = "<verdict>yes</verdict>"


class OwnStrategy(FirstK):
    """Trains the first blocks, under a name that is not the package's."""


def in_verdict_tags(completions: list[Any], **_: Any) -> list[float]:
    """1 where the model says yes in tags of the user's own."""
    return [float(VERDICT in str(completion)) for completion in completions]


def letters(completions: list[str], **_: Any) -> list[float]:
    """How many different characters a completion has: random models earn differently."""
    return [float(len(set(completion))) for completion in completions]
