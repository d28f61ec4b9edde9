"""Records which transformer blocks a schedule trains, in the steps where that changes."""

from collections import Counter
from typing import TYPE_CHECKING

from efficient_rl.strategies.blocks import names_by_block
from efficient_rl.training.parameters import TrainedParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REST = "other"  # embeddings, final norm, head


class BlockActivity:
    """Remembers what it said last; a new one, as after a resume, says everything again."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def changes(self, model: "PreTrainedModel", parameters: TrainedParameters) -> dict[str, float]:
        """`blocks/<number>` and `blocks/other`: the share of what may ever train that trains now.

        Only what changed; empty without a schedule, whose choice never changes.
        """
        if parameters.schedule is None:
            return {}
        block_of = {name: f"{index:02d}" for index, names in enumerate(_names(model)) for name in names}
        sizes, active, active_sizes = Counter[str](), parameters.active, Counter[str]()
        for name, parameter in model.named_parameters():
            if name in parameters.trainable:
                block = f"blocks/{block_of.get(name, REST)}"
                sizes[block] += parameter.numel()
                active_sizes[block] += parameter.numel() * (name in active)
        now = {block: active_sizes[block] / size for block, size in sizes.items()}
        new = dict(sorted(now.items() - self._said.items()))
        self._said = now
        return new


def _names(model: "PreTrainedModel") -> list[list[str]]:
    try:
        return names_by_block(model)
    except ValueError:  # a model without a list of blocks: all of it counts as the rest
        return []
