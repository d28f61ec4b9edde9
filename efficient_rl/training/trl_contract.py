"""The methods and private attributes of TRL and transformers that this package depends on.

It overrides, replaces, calls or reads them, and both libraries change them without notice.
`tests/test_trl_contract.py` compares the table with what is installed and with what the package
uses; CONTRIBUTING.md says how to move to the next TRL.
"""

import ast
import inspect
import textwrap
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

ATTRIBUTE = ""  # instead of a signature


@dataclass(frozen=True)
class Entry:
    """A name, its owner (a class or a module), and the signature relied on, without annotations."""

    owner: str
    name: str
    signature: str = ATTRIBUTE

    def __str__(self) -> str:
        return f"{self.owner.replace(':', '.')}.{self.name}"

    def difference(self) -> str | None:
        """What is installed in its place, in one line; None where it is as relied on."""
        owner = resolve_name(self.owner)
        if self.signature == ATTRIBUTE:
            exists = hasattr(owner, self.name) or self.name in assigned(owner)
            return None if exists else f"{self} is gone"
        found = getattr(owner, self.name, None)
        if not callable(found):
            return f"{self}{self.signature} is gone"
        if (installed := signature(found)) != self.signature:
            return f"{self}{self.signature} is now {self.name}{installed}"
        return None


GRPO, TRAINER = "trl:GRPOTrainer", "transformers:Trainer"
VLLM, UTILS = "trl.generation.vllm_generation:VLLMGeneration", "trl.trainer.utils"
CONTRACT = (
    # A batch
    Entry(GRPO, "_generate_and_score_completions", "(self, inputs)"),
    Entry(GRPO, "_generate", "(self, prompts)"),
    Entry(GRPO, "_tokenize_prompts", "(self, prompts)"),
    Entry(
        GRPO,
        "_generate_single_turn",
        "(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False)",
    ),
    Entry(GRPO, "_calculate_rewards", "(self, inputs, prompts, completions, completion_ids_list)"),
    Entry(GRPO, "_buffered_inputs"),
    Entry(GRPO, "_tokenizer"),
    Entry(GRPO, "_logs"),
    Entry(GRPO, "_metrics"),
    # Passes and the update
    Entry(GRPO, "training_step", "(self, model, inputs, num_items_in_batch)"),
    Entry(GRPO, "_compute_loss", "(self, model, inputs)"),
    Entry(
        GRPO,
        "_get_per_token_logps_and_entropies",
        "(self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, "
        "compute_aux_loss=False, pixel_values=None, image_grid_thw=None, num_images=None, pixel_attention_mask=None, "
        "spatial_shapes=None, num_tiles=None, image_sizes=None, token_type_ids=None, mm_token_type_ids=None, "
        "image_position_ids=None)",
    ),
    Entry(GRPO, "_step"),
    Entry(TRAINER, "train", "(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None)"),
    Entry(TRAINER, "_clip_grad_norm", "(self, model)"),
    Entry(TRAINER, "create_optimizer", "(self, model=None)"),
    Entry(TRAINER, "create_scheduler", "(self, num_training_steps, optimizer=None)"),
    Entry("trl.trainer.grpo_trainer", "create_model_from_path", "(model_id, architecture=None, **kwargs)"),
    Entry(UTILS, "_CHUNKED_LOGPROB_CHUNK_SIZE"),
    Entry(UTILS, "_use_triton", "(device)"),
    # Checkpoints
    Entry(GRPO, "_save_checkpoint", "(self, model, trial)"),
    Entry(GRPO, "_load_optimizer_and_scheduler", "(self, checkpoint)"),
    Entry(GRPO, "_last_world_entropy"),
    Entry(GRPO, "create_model_card", "(self, model_name=None, dataset_name=None, tags=None)"),
    Entry(TRAINER, "_get_output_dir", "(self, trial)"),
    Entry(TRAINER, "_load_from_checkpoint", "(self, resume_from_checkpoint, model=None)"),
    Entry(TRAINER, "_load_best_model", "(self)"),
    Entry(TRAINER, "save_model", "(self, output_dir=None, _internal_call=False)"),
    Entry(TRAINER, "_save", "(self, output_dir=None, state_dict=None)"),
    Entry(TRAINER, "_save_optimizer_and_scheduler", "(self, output_dir)"),
    Entry(TRAINER, "_save_rng_state", "(self, output_dir)"),
    # vLLM
    Entry(VLLM, "_iter_named_params", "(self)"),
    Entry(VLLM, "sync_weights", "(self)"),
    Entry(VLLM, "_weight_metadata"),
)


def signature(function: Any) -> str:
    """The parameters of a function, without annotations."""
    found = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def assigned(owner: Any) -> set[str]:
    """The attributes that a class's methods assign to `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    stored = [node for node in attributes if isinstance(node.ctx, ast.Store)]
    return {node.attr for node in stored if ast.unparse(node.value) == "self"}
