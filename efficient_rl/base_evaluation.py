"""Evaluates the model that training starts from once, for all runs that start from the same."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from efficient_rl.errors import first_line
from efficient_rl.evaluate import Evaluation, Evaluator
from efficient_rl.files import write_atomic
from efficient_rl.rundir.provenance import packages, source_digest
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
POLL_SECONDS = 1.0
OURS, ALONE = "ours", "alone"  # whose evaluation it is: for all runs, or for this one


@dataclass(frozen=True)
class BaseEvaluator:
    """Evaluates as `evaluator` does, or reads what another run found or is just finding.

    `folder` keeps evaluations under a digest of what decides them: the weights, the prompts and
    what they are judged by, what the evaluator does with them, and `settings`, which stand for the
    rest. A run that is killed while it evaluates loses its lock, and the next one evaluates.
    """

    evaluator: Evaluator
    folder: Path
    settings: Any

    def evaluate(self, model: "PreTrainedModel", problems: Sequence[Problem], seed: int) -> Evaluation:
        """As `Evaluator.evaluate`; for all processes of its group to call."""
        group = self.evaluator.group
        path = self.folder / f"{self._key(model, problems, seed)}.json"
        lock, known, turn, told = FileLock(path.with_suffix(".lock")), None, "", False
        try:
            while known is None and not turn:
                self.evaluator.between()
                if group.is_main:
                    known = _read(path)
                    turn = "" if known else _turn(lock)
                    known = known or _read(path)  # written while we waited
                known, turn = group.broadcast((known, turn))
                if known is None and not turn and group.is_main and not told:
                    logger.info("another run evaluates the model that training starts from; waiting for %s", path.name)
                    told = True
            if known is None:
                known = self.evaluator.evaluate(model, problems, seed)
                if group.is_main and turn == OURS:
                    write_atomic(path, json.dumps(asdict(known)), durable=True)
            return known
        finally:
            lock.release()

    def _key(self, model: "PreTrainedModel", problems: Sequence[Problem], seed: int) -> str:
        does = self.evaluator
        asked = [(does.encode(each), each.check, each.gold, each.difficulty, each.source) for each in problems]
        parts = {
            "model": (weights_digest(model), model.device.type),
            "asked": (asked, seed, does.place, does.prefill),
            "drawn": (asdict(does.sampling), does.samples, sorted(does.stop_ids), does.tokenizer.pad_token_id),
            "read": does.decode and does.decode.rule,
            "code": (source_digest(), packages(), does.group.size),
            "settings": self.settings,
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def sharing(evaluator: Evaluator, folder: Path | None, strategy: Any, *settings: Any) -> Evaluator | BaseEvaluator:
    """What evaluates the model that training starts from; without a folder for this run alone.

    So it is for a strategy that is not ours, which may change more than the weights.
    """
    ours = type(strategy).__module__.startswith("efficient_rl.")
    return BaseEvaluator(evaluator, folder, settings) if folder is not None and ours else evaluator


def _turn(lock: FileLock) -> str:
    """OURS with the lock, ALONE where we may not write in the folder, "" while others have it."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=POLL_SECONDS)
    except Timeout:
        return ""
    except OSError as error:
        logger.warning("the evaluation before training is not shared with other runs: %s", first_line(error))
        return ALONE
    return OURS


def _read(path: Path) -> Evaluation | None:
    """The evaluation in a file; None where it is missing or damaged."""
    try:
        return Evaluation(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def weights_digest(model: "PreTrainedModel") -> str:
    """A digest of what the model computes with; the same for merged adapters that change nothing.

    Adapters that are not merged count with their settings.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    digest = hashlib.sha256(model.config.to_json_string().encode())
    if isinstance(model, PeftModel):
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        if not layers or not all(layer.merged for layer in layers):
            digest.update(repr(model.peft_config).encode())
    for name, tensor in sorted(_computing(model)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        copied = tensor.detach().to("cpu", copy=True)  # numpy would fix the storage, which FSDP resizes
        digest.update(copied.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _computing(model: "PreTrainedModel") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Parameters and buffers under the names of the base model, without what was merged."""
    merged = [f"{name}." for name, module in model.named_modules() if getattr(module, "merged", False) is True]
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        layer = next(filter(name.startswith, merged), None)
        if layer is None or name.startswith(f"{layer}base_layer."):
            yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor
