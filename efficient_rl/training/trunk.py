"""Hidden states of the frozen first blocks, computed once a batch and shared by every pass over it.

Where a prefix of the model is frozen, its output is the same in the old-policy, reference and
policy passes and in every one of the `num_iterations` updates (trlX's frozen trunk, generalised to
any number of blocks). The first pass over a batch keeps what enters the first trained block; the
others start there.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from transformers import PreTrainedModel

from efficient_rl.strategies.blocks import find_blocks

logger = logging.getLogger(__name__)
HIDDEN, PLACES, DEPTH = "trunk_hidden_states", "trunk_places", "trunk_depth"  # how a batch carries a trunk
UNUSED_DROPOUT = ("summary_", "classifier_")  # of heads that a causal language model does not have
COPIES = 2  # while the pieces of a batch are put together


class Part(NamedTuple):
    """What a call of the model computes: columns `start` to `end` of some rows of a batch.

    `readers` are the rows that they stand for, and `source` says which computed row each of these
    reads; None: each its own. `columns`, shape (batch, width), says where the columns stand in the
    batch; None: as they are.
    """

    rows: torch.Tensor
    start: int
    end: int
    readers: torch.Tensor
    source: torch.Tensor | None = None
    columns: torch.Tensor | None = None

    def place(self, rows: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The index of these columns of some rows in a tensor of the whole batch."""
        if self.columns is None:
            return rows, slice(self.start, self.end)
        return rows[:, None], self.columns[rows, self.start : self.end]


def frozen_depth(model: PreTrainedModel, trainable: Collection[str]) -> int:
    """How many leading blocks are frozen with everything before them: 0 to all."""
    blocks = _blocks(model)
    owner: dict[int, int] = {}
    for position, block in enumerate(blocks):
        for parameter in block.parameters():
            owner.setdefault(id(parameter), position)  # of one that blocks share, the first
    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    depth, seen_block = len(blocks), False
    for name, parameter in model.named_parameters(remove_duplicate=False):
        index: int | None = owner.get(id(parameter))
        seen_block = seen_block or index is not None
        if name not in trainable:
            continue
        if index is not None:
            depth = min(depth, index)
        elif id(parameter) in embeddings or not seen_block:
            return 0
    return depth


class Trunk(NamedTuple):
    """What enters the block behind `depth` others for each token of a batch, shared ones once."""

    hidden: torch.Tensor  # (tokens, hidden)
    places: torch.Tensor  # (completions, width): where in `hidden` each column of a row stands
    depth: int

    @classmethod
    def carried(cls, batch: Mapping[str, Any]) -> "Trunk | None":
        """The trunk of a batch or of a part of it."""
        hidden = batch.get(HIDDEN)
        return None if hidden is None else cls(hidden[0], batch[PLACES], int(batch[DEPTH]))

    def carry(self) -> dict[str, Any]:
        """Entries of a batch, which TRL shuffles and cuts by completions: all have one tensor."""
        return {HIDDEN: [self.hidden] * len(self.places), PLACES: self.places, DEPTH: torch.tensor(self.depth)}

    def of(self, part: Part) -> torch.Tensor:
        """What enters the block in a part of the batch, (rows, columns, hidden)."""
        return self.hidden[self.places[part.place(part.rows)]]


class TrunkCache:
    """Caches the trunk of one batch at a time; does not if it would exceed `limit_bytes`."""

    def __init__(self, model: PreTrainedModel, limit_bytes: int) -> None:
        self._blocks = _blocks(model)
        self._limit_bytes = limit_bytes
        self._random = has_dropout(model)
        self._depth = self._rows = self._filled = self._tokens = 0
        self._pieces: list[torch.Tensor] = []
        self._places: torch.Tensor | None = None
        self._kept: Trunk | None = None
        self._part: Part | None = None
        self._gives_tuples = False
        self._warned = False

    def begin(self, depth: int, rows: int) -> None:
        """Begin a batch of `rows` whose first `depth` blocks are frozen; 0 keeps nothing."""
        self._depth = 0 if self._random else depth
        self._rows, self._filled = rows, 0
        self._drop()

    def take(self) -> dict[str, Any]:
        """What the batch shall carry to later passes; empty where nothing was kept."""
        kept = self._kept
        self._drop()
        return {} if kept is None else kept.carry()

    def _drop(self) -> None:
        self._pieces, self._tokens, self._places, self._kept = [], 0, None, None

    @contextmanager
    def passing(self, rows: torch.Tensor, tokens: int, width: int, deepest: int) -> Iterator[None]:
        """A pass over some rows of the batch and the first `tokens` of its `width` columns.

        Keeps the rows' trunk if the batch has none yet, else starts from it. `deepest` is how many
        blocks this pass computes like the others: a reference differs from the policy where
        training has been.
        """
        if self._depth == 0 or deepest < self._depth:
            yield
        elif self._kept is not None:
            with self.serving(self._kept, rows, tokens):
                yield
        elif self._filled >= self._rows:
            yield
        else:
            with self._keeping(rows, tokens, width):
                yield

    @contextmanager
    def computing(self, part: Part) -> Iterator[None]:
        """Inside, the model computes this part of the batch; else whole rows."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    @contextmanager
    def _keeping(self, rows: torch.Tensor, tokens: int, width: int) -> Iterator[None]:
        whole = Part(rows, 0, tokens, rows)

        def keep(block: nn.Module, inputs: Any, output: Any) -> None:
            if self._filled >= self._rows:
                return
            part = self._part or whole
            self._gives_tuples = not isinstance(output, torch.Tensor)
            hidden = output[0] if self._gives_tuples else output
            ordinary = hidden.dim() == 3 and hidden.shape[:2] == (len(part.rows), part.end - part.start)
            if ordinary and self._fits(hidden):
                self._keep(part, hidden, width)
            else:
                self._filled = self._rows  # no pass of this batch keeps any
                self._drop()

        handle = self._blocks[self._depth - 1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()
        self._filled += len(rows)
        if self._filled == self._rows and self._places is not None:
            self._kept = Trunk(torch.cat(self._pieces), self._places, self._depth)
            self._pieces, self._places = [], None

    def _keep(self, part: Part, hidden: torch.Tensor, width: int) -> None:
        """Keep one computed part: each of its readers finds it there."""
        if self._places is None:
            self._places = torch.zeros(self._rows, width, dtype=torch.long, device=hidden.device)
        count = hidden.shape[0] * hidden.shape[1]
        places = self._tokens + torch.arange(count, device=hidden.device).view(hidden.shape[:2])
        self._places[part.place(part.readers)] = places if part.source is None else places[part.source]
        self._pieces.append(hidden.detach().flatten(0, 1).clone())
        self._tokens += count

    @contextmanager
    def serving(self, trunk: Trunk, rows: torch.Tensor, tokens: int) -> Iterator[None]:
        """A pass that starts from the batch's trunk."""
        whole = Part(rows, 0, tokens, rows)

        def serve(arrived: torch.Tensor, *rest: Any, **keywords: Any) -> Any:
            return self._formed(trunk.of(self._part or whole))

        def skip(arrived: torch.Tensor, *rest: Any, **keywords: Any) -> Any:
            return self._formed(arrived)

        with _replaced(self._blocks[: trunk.depth], [skip] * (trunk.depth - 1) + [serve]):
            yield

    def _formed(self, hidden: torch.Tensor) -> Any:
        """The hidden states in the form that a block of this model returns them."""
        return (hidden,) if self._gives_tuples else hidden

    def _fits(self, hidden: torch.Tensor) -> bool:
        tokens = self._tokens + hidden.shape[0] * hidden.shape[1]
        needed = COPIES * tokens * hidden.shape[-1] * hidden.element_size()
        if needed > self._limit_bytes and not self._warned:
            self._warned = True
            logger.warning(
                "the trunk cache would need more than %.1f MiB a batch (may take: %.1f); every pass computes all blocks",
                needed / 2**20,
                self._limit_bytes / 2**20,
            )
        return needed <= self._limit_bytes


@contextmanager
def _replaced(modules: Iterable[nn.Module], forwards: Iterable[Callable[..., Any]]) -> Iterator[None]:
    """Modules that compute something else inside."""
    with ExitStack() as stack:
        for module, forward in zip(modules, forwards, strict=True):
            stack.enter_context(patch.object(module, "forward", forward))
        yield


def _blocks(model: PreTrainedModel) -> Sequence[nn.Module]:
    """The model's blocks; none where it has no list of them, and then no trunk either."""
    try:
        return list(find_blocks(model))
    except ValueError:
        return []


def has_dropout(model: PreTrainedModel) -> bool:
    """Whether two passes may differ over the same tokens, by dropout modules or settings."""
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        return True
    settings = model.config.get_text_config().to_dict()
    names = [name for name in settings if name.endswith(("dropout", "pdrop")) and not name.startswith(UNUSED_DROPOUT)]
    return any(isinstance(settings[name], int | float) and settings[name] > 0 for name in names)
