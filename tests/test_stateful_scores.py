"""The scores of models that carry a state are those of every row alone, whatever stands beside it."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from tests.odd_models import byte_tokenizer
from tests.own_parts import letters
from tests.test_stateful import PROMPTS, made

WIDTH = 5


@pytest.mark.parametrize("buckets", [True, False])
@pytest.mark.parametrize("most_rows", [None, 2])
def test_padding_does_not_reach_the_scores(buckets: bool, most_rows: int | None, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(template=None)
    model = made("recurrent_gemma", len(tokenizer))
    trainer = EfficientGRPOTrainer(
        model, letters,
        GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], disable_tqdm=True),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8), processing_class=tokenizer,
        optimizations=Optimizations(length_buckets=buckets),
    )  # fmt: skip
    trainer.model.eval()
    longest = max(map(len, PROMPTS))
    completions = torch.randint(20, 200, (len(PROMPTS), WIDTH), generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(len(PROMPTS), longest + WIDTH, dtype=torch.long)
    mask = torch.zeros_like(ids)
    ends = [5, 3, 1, 5, 2]  # of the completions
    for row, prompt in enumerate(PROMPTS):
        start, end = longest - len(prompt), longest + ends[row]
        ids[row, start:] = torch.tensor(prompt + completions[row].tolist())
        mask[row, start:end] = 1
    with torch.no_grad():
        found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, WIDTH, most_rows)
        for row, prompt in enumerate(PROMPTS):
            alone = torch.tensor([prompt + completions[row, : ends[row]].tolist()])
            logits = trainer.model(input_ids=alone).logits[0, len(prompt) - 1 : -1] / trainer.temperature
            wanted = logits.log_softmax(-1).gather(1, alone[0, len(prompt) :, None]).squeeze(1)
            assert torch.allclose(found[row, : ends[row]], wanted, atol=1e-4), row
