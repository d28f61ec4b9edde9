"""Checks that a run's model, tokenizer and prompts fit together, without the weights."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from efficient_rl.config.run_config import RunConfig
from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from efficient_rl.decoding import CompletionDecoder

PROMPTS_ENCODED = 64


@dataclass(frozen=True)
class Form:
    """What a run's completions begin with, and how they are written and read."""

    tokenizer: "PreTrainedTokenizerBase"
    decode: "CompletionDecoder"
    prefill: str
    longest: int  # of some prompts, in tokens

    def read(self, completion: str) -> str:
        """The completion as rewards read it; as it is where the tokenizer cannot write it."""
        ids = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        if "".join(self.tokenizer.decode(ids).split()) != "".join(completion.split()):
            return completion
        return self.decode([[*ids, self.tokenizer.eos_token_id]])[0]


def form_of(run: RunConfig) -> Form:
    """The form of a run's completions; ConfigError where its parts do not fit."""
    from efficient_rl.datasets import load_splits
    from efficient_rl.decoding import CompletionDecoder, code_of
    from efficient_rl.models import load_config, load_tokenizer
    from efficient_rl.preflight.dry_step import shaped_model
    from efficient_rl.prompts import Prompts, end_ids

    load_config(run.model)
    tokenizer, model = load_tokenizer(run.model), shaped_model(run.model)
    few = replace(run, grpo=replace(run.grpo, train_problems=min(run.grpo.train_problems, PROMPTS_ENCODED)))
    problems = load_splits(few)
    prompts = Prompts(run.model, run.prompt, tokenizer, problems.examples)
    encoded = list(map(prompts.encoded, problems.train))
    prompts.fitting_stop_ids(model, encoded, run.grpo.max_completion_length)
    code = code_of([term.function.build() for term in run.reward])
    decode = CompletionDecoder(tokenizer, end_ids(model, tokenizer), code)
    return Form(tokenizer, decode, prompts.prefill, max(map(len, encoded)))


def check_prompt(run: RunConfig) -> list[Finding]:
    """Whether prompts and completions are within what the model reads, token by token."""
    try:
        form = form_of(run)
    except ConfigError as error:
        return [Finding("failure", "prompt", str(error), "every run fails before its first step", "what the message names")]
    begun = f"; the prompt begins the completion with {form.prefill!r}" if form.prefill else ""
    return [ok("prompt", f"up to {form.longest} tokens and {run.grpo.max_completion_length} of the completion{begun}")]
