"""Notes which transformer blocks a schedule trains, in the steps where that changes: a few numbers instead of one a step."""

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
        """`blocks/<number>` and `blocks/other`: which share of what may ever train there trains now, where it is new.

        Empty without a schedule, whose choice never changes.
        """
        if parameters.schedule is None:
            return {}
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in parameters.trainable}
        blocks = {f"{index:02d}": set(names) & set(sizes) for index, names in enumerate(_names(model))}
        blocks[REST] = set(sizes) - set().union(*blocks.values())
        active = parameters.active
        now = {
            f"blocks/{name}": sum(sizes[each] for each in own & active) / sum(sizes[each] for each in own)
            for name, own in blocks.items()
            if own
        }
        new = {name: share for name, share in now.items() if self._said.get(name) != share}
        self._said = now
        return new


def _names(model: "PreTrainedModel") -> list[list[str]]:
    try:
        return names_by_block(model)
    except ValueError:  # a model without a list of blocks: all of it counts as the rest
        return []
