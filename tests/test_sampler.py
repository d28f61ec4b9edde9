"""Our sampler draws what `generate` draws, only with less work."""

import pytest
import torch
from transformers import PreTrainedModel

from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.prompts import Prompts
from efficient_rl.training.sampler import Draws, SamplingSettings, choose, draws, sample
from tests.conftest import tiny_run

PROMPTS = ["3,7=10:", "12,5,4=11:", "19+4:"]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.set_num_threads(1)
    return load_model(tiny_run().model)


def test_greedy_completions_equal_those_of_generate(model: PreTrainedModel) -> None:
    config = tiny_run().model
    tokenizer = load_tokenizer(config)
    writer = Prompts(config, tiny_run().prompt, tokenizer)
    prompts = [writer.encode(text) for text in PROMPTS]
    stop = writer.stop_ids(model)
    ours = sample(model, prompts, SamplingSettings(40, temperature=0), stop, tokenizer.pad_token_id)
    for ids, completion in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False, eos_token_id=stop)[0, len(ids) :]
        assert completion == theirs.tolist()
        assert completion[-1] in stop or len(completion) == 40


def test_sampled_first_tokens_follow_the_models_probabilities(model: PreTrainedModel) -> None:
    from scipy.stats import chisquare

    config = tiny_run().model
    tokenizer = load_tokenizer(config)
    ids = Prompts(config, tiny_run().prompt, tokenizer).encode(PROMPTS[1])
    rows = 4000
    settings = SamplingSettings(1, temperature=1.3)
    completions = sample(model, [ids] * rows, settings, [tokenizer.eos_token_id], 0, draws([0], rows, 1))
    counts = torch.bincount(torch.tensor([c[0] for c in completions]), minlength=len(tokenizer)).double()
    with torch.no_grad():
        expected = (model(torch.tensor([ids])).logits[0, -1].double() / 1.3).softmax(-1) * rows
    rare = expected < 5
    rare[expected.argmin()] = True  # the rare ones share a bin, together with the least common of the rest
    rare |= expected == expected[~rare].min()
    observed = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    wanted = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True)])
    assert len(observed) > 2
    assert chisquare(observed.numpy(), wanted.numpy() * (observed.sum() / wanted.sum()).item()).pvalue > 1e-3


def test_rows_of_a_group_differ_and_the_seed_decides_them(model: PreTrainedModel) -> None:
    config = tiny_run().model
    tokenizer = load_tokenizer(config)
    ids = Prompts(config, tiny_run().prompt, tokenizer).encode(PROMPTS[0])

    def draw(seed: int) -> list[list[int]]:
        return sample(model, [ids] * 16, SamplingSettings(20), [1], 0, draws([seed], 16, 20))

    assert draw(1) == draw(1) != draw(2)
    assert len({tuple(row) for row in draw(1)}) > 1


def test_top_k_and_top_p_leave_out_the_tail() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(2000, 1)
    uniform = draws([0], 2000, 1)[:, 0]
    assert set(choose(logits, SamplingSettings(1, top_k=2), uniform).tolist()) == {0, 1}
    assert set(choose(logits, SamplingSettings(1, top_p=0.75), uniform).tolist()) == {0, 1}
    assert set(choose(logits, SamplingSettings(1, top_p=0.81), uniform).tolist()) == {0, 1, 2}
    assert set(choose(logits, SamplingSettings(1, temperature=0), uniform).tolist()) == {0}


def test_sampling_leaves_the_model_in_the_mode_it_was_in(model: PreTrainedModel) -> None:
    for training in (True, False):
        model.train(training)
        sample(model, [[10, 11]], SamplingSettings(2), [1], 0, draws([0], 1, 2))
        assert model.training is training


def test_a_part_of_the_rows_draws_what_it_draws_among_all(model: PreTrainedModel) -> None:
    tokenizer = load_tokenizer(tiny_run().model)
    ids = Prompts(tiny_run().model, tiny_run().prompt, tokenizer).encode(PROMPTS[0])
    settings = SamplingSettings(20)
    whole = sample(model, [ids] * 10, settings, [1], 0, draws([3, 4], 10, 20))
    parts = [sample(model, [ids] * n, settings, [1], 0, draws([3, 4], n, 20, at)) for at, n in ((0, 3), (3, 7))]
    assert parts[0] + parts[1] == whole
    assert torch.equal(draws([3, 4], 7, 20, 3), draws([3, 4], 10, 20)[3:])


def test_random_numbers_at_both_ends_choose_tokens_that_have_a_probability() -> None:
    logits = torch.full((2, 50_000), -torch.inf)
    logits[:, 7] = logits[:, 11] = 0.0
    ends = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, SamplingSettings(1), ends).tolist() == [7, 11]


def test_logits_that_are_no_numbers_end_the_sampling_with_a_reason() -> None:
    with pytest.raises(RuntimeError, match="no longer numbers"):
        choose(torch.full((1, 4), torch.nan), SamplingSettings(1), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs random numbers"):
        choose(torch.zeros(1, 4), SamplingSettings(1), None)


def test_a_training_draws_the_same_completions_in_any_number_of_processes() -> None:
    one = Draws(3).uniform(5, 6, 4)
    two = [Draws(3, process, 2).uniform(5, 3, 4) for process in range(2)]
    assert torch.equal(torch.cat(two), one)


def test_every_step_generation_and_process_has_another_seed() -> None:
    seeds = set()
    for process in range(2):
        draws_of_process = Draws(3, process, 2)
        for step in range(3):
            draws_of_process.begin_step()
            for _ in range(2):
                seeds.add(draws_of_process.seed(step))
                draws_of_process.uniform(step, 1, 1)
    assert len(seeds) == 2 * 3 * 2
