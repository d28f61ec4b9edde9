"""Exactly the promised tensors change in a few real steps; all others stay bit-identical."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from efficient_rl.models import load_model
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.modules import Modules, Parts
from efficient_rl.strategies.selection import resolve_layers
from efficient_rl.strategies.spectrum import Spectrum, signal_to_noise
from efficient_rl.strategies.static import Block, FirstK, Full, LastK, Layers
from tests.conftest import execute_tiny, slow_unless, tiny_run
from tests.small_models import BLOCKS, MODELS, trainable

PROMISED = {
    "strategy=full": r".",
    "strategy=first_k strategy.k=1": r"layers\.0\.",
    "strategy=last_k strategy.k=2": r"layers\.[45]\.",
    "strategy=last_k strategy.k=1 strategy.also_train=[norm]": r"layers\.5\.|^model\.norm\.",
}


@pytest.mark.parametrize("overrides", slow_unless(("strategy=last_k strategy.k=1 strategy.also_train=[norm]",), PROMISED))
def test_exactly_the_promised_tensors_change(tmp_path: Path, overrides: str) -> None:
    before = load_model(tiny_run().model).state_dict()
    _, record = execute_tiny(tmp_path, *overrides.split(), "grpo.learning_rate=1e-3")
    after = AutoModelForCausalLM.from_pretrained(record.folder / "model").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if re.search(PROMISED[overrides], name)}


def test_lora_leaves_the_base_as_it_was_and_trains_every_adapter(tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    base = load_model(tiny_run().model)
    _, record = execute_tiny(tmp_path, "strategy=lora", "lora.rank=2", "grpo.learning_rate=1e-3")
    adapters = load_file(record.folder / "model" / "adapter_model.safetensors")
    assert len(adapters) == 6 * 7 * 2
    assert all(bool(tensor.abs().sum() > 0) for name, tensor in adapters.items() if "lora_B" in name)
    wrapped = PeftModel.from_pretrained(load_model(tiny_run().model), record.folder / "model")
    with wrapped.disable_adapter():
        ids = torch.tensor([[10, 11, 12]])
        assert torch.equal(wrapped(ids).logits, base(ids).logits)


@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_found_in_every_architecture(name: str) -> None:
    model = MODELS[name]()
    blocks = find_blocks(model)
    assert len(blocks) == model.config.num_hidden_layers
    trained = {id(p) for p in FirstK(2).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in blocks[:2] for p in block.parameters()}
    trained = {id(p) for p in LastK(3).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in blocks[-3:] for p in block.parameters()}
    trained = {id(p) for p in Layers([0, "-1"]).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in (blocks[0], blocks[-1]) for p in block.parameters()}
    trained = {id(p) for p in Block(start=1, length=2).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in blocks[1:3] for p in block.parameters()}
    assert all(p.requires_grad for p in Full().apply(model).parameters())


def test_parameter_counts_are_those_worked_out_by_hand() -> None:
    hidden, inner, rank = 64, 192, 8
    block = (
        4 * hidden * hidden + 3 * hidden + 3 * hidden * inner + 2 * hidden
    )  # attention with its q, k, v biases, MLP, norms
    model = load_model(tiny_run().model)
    count = lambda m: sum(p.numel() for p in m.parameters() if p.requires_grad)  # noqa: E731
    assert count(FirstK(2).apply(model)) == 2 * block
    assert count(Full().apply(model)) == 6 * block + 36 * hidden + hidden  # tied embeddings, final norm
    adapters = 4 * rank * (hidden + hidden) + 3 * rank * (hidden + inner)
    assert count(Lora(rank=rank, alpha=16).apply(model)) == 6 * adapters


def test_more_blocks_than_there_are_is_refused_with_the_bound() -> None:
    with pytest.raises(ValueError, match=r"strategy.k=7 exceeds the model's 6 blocks; use k<=6 or strategy=full"):
        LastK(7).apply(load_model(tiny_run().model))


def test_a_name_that_selects_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"also_train='lm_hed' names no parameter; parts of this model: .*embed_tokens"):
        LastK(1, also_train=["lm_hed"]).apply(load_model(tiny_run().model))


@pytest.mark.parametrize(
    ("layers", "blocks", "chosen"),
    [
        (3, 6, [3]),
        (-1, 6, [5]),
        ("-2", 6, [4]),
        ("2:5", 6, [2, 3, 4]),
        ("-2:", 6, [4, 5]),
        (":2", 6, [0, 1]),
        ([5, 0, "0", "-1"], 6, [0, 5]),
        ("first 50%", 6, [0, 1, 2]),
        ("last 25%", 24, [18, 19, 20, 21, 22, 23]),
        ("last 25%", 6, [4, 5]),
        ("last 25%", 5, [4]),
        ("first 1%", 6, [0]),
        ("last 100%", 3, [0, 1, 2]),
        ("last 2", 6, [4, 5]),
        (["first 1", "last 1"], 4, [0, 3]),
        ("all", 3, [0, 1, 2]),
    ],
)
def test_layers_are_named_by_number_slice_and_ratio(layers: object, blocks: int, chosen: list[int]) -> None:
    assert resolve_layers(layers, blocks) == chosen


@given(
    st.one_of(st.none(), st.integers(-8, 8)),
    st.one_of(st.none(), st.integers(-8, 8)),
    st.integers(1, 8),
    st.floats(0.1, 100),
)
def test_layers_are_never_empty_and_always_there(start: int | None, stop: int | None, blocks: int, percent: float) -> None:
    text = f"{'' if start is None else start}:{'' if stop is None else stop}"
    expected = list(range(blocks))[start:stop]
    try:
        assert resolve_layers(text, blocks) == expected != []
    except ValueError:
        assert not expected or any(bound is not None and abs(bound) > blocks for bound in (start, stop))
    first, last = resolve_layers(f"first {percent:.3f}%", blocks), resolve_layers(f"last {percent:.3f}%", blocks)
    assert 1 <= len(first) == len(last) <= blocks
    assert first[0] == 0
    assert last[-1] == blocks - 1


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (6, r"layers=6 exceeds the model's 6 blocks; use -6 to 5"),
        ("0:9", r"layers='0:9' exceeds the model's 6 blocks; use bounds from -6 to 6"),
        ("4:2", r"layers='4:2' names none of the model's 6 blocks; the start must be below the stop"),
        ("last 7", r"layers='last 7' must name 1 to 6 whole blocks"),
        ("last 0%", r"layers='last 0%' must name above 0 and at most 100 %"),
        ("top", r"strategy.layers='top' holds 'top', which names no layers; use a number"),
        ([], r"strategy.layers=\[\] names no layers"),
        (True, r"strategy.layers=True holds True"),
        ([1.5], r"strategy.layers=\[1.5\] holds 1.5"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layers(layers).check_blocks(6)


def test_the_four_parts_of_surgical_fine_tuning_share_out_the_blocks() -> None:
    model = MODELS["nano"]()
    numbers = []
    for part in ("first", "second", "third", "last"):
        numbers.append({int(name.split(".")[2]) for name in trainable(Block(part).apply(model))})
    assert numbers == [{0}, {1, 2}, {3}, {4, 5}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Block("fourth"), r"strategy.part='fourth' is not known; use one of first, second, third, last"),
        (lambda: Block(), r"give one of them"),
        (lambda: Block("first", start=1), r"strategy.part='first' and strategy.start=1: give one of them"),
        (
            lambda: Block(start=5, length=2).check_blocks(6),
            r"strategy.start=5 with strategy.length=2 exceeds .* 6 blocks; use",
        ),
        (lambda: Block("last").check_blocks(3), r"strategy.part=last needs 4 blocks or more, the model has 3"),
        (lambda: Modules(["("]), r"'\(' is no regular expression"),
        (lambda: Modules([]), r"strategy.patterns=\[\] selects nothing"),
        (lambda: Parts(["head", "tail"]), r"\['head', 'tail'\] must name some of attention, mlp, norms, biases, head"),
        (lambda: Spectrum(0), r"strategy.top_percent=0 must be a number above 0 and at most 100"),
        (lambda: Layers(1, also_train=[3]), r"strategy.also_train=\[3\] must list names"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


PARTS = {
    "attention": r"\.(self_attn|attn)\.",
    "mlp": r"\.mlp\.",
    "norms": r"(norm|ln_1|ln_2|ln_f)\.",
    "biases": r"\.bias$",
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("part", PARTS)
def test_parts_are_found_in_every_architecture(name: str, part: str) -> None:
    model = MODELS[name]()
    expected = {path for path, _ in model.named_parameters() if re.search(PARTS[part], path)}
    if part == "biases" and "llama" in name:
        with pytest.raises(ValueError, match=r"LlamaForCausalLM has no biases, its layers were built without them; use"):
            Parts([part]).apply(model)
    else:
        assert expected
        assert trainable(Parts([part]).apply(model)) == expected
        assert trainable(Modules(PARTS[part]).apply(model)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_tied_head_trains_with_the_embeddings_and_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = Parts(["head"]).apply(MODELS[name]())
    (only,) = trainable(model)
    tied = "untied" not in name
    assert model.get_parameter(only) is model.get_output_embeddings().weight
    assert (only == "lm_head.weight") != tied
    assert ("one tensor" in caplog.text) == tied


def test_also_train_adds_to_what_a_part_trains() -> None:
    model = Parts("norms", also_train="embed_tokens").apply(MODELS["qwen2-untied"]())
    assert "model.embed_tokens.weight" in trainable(model)
    assert "lm_head.weight" not in trainable(model)


def test_a_pattern_that_finds_nothing_is_refused_with_the_parts_there_are() -> None:
    with pytest.raises(ValueError, match=r"'qproj' finds no parameter; parts of this model: .*q_proj"):
        Modules(["v_proj", "qproj"]).apply(MODELS["llama-tied"]())


def known_matrix(values: list[float], rows: int, columns: int) -> torch.Tensor:
    """A matrix with those singular values, turned at random."""
    draw = torch.Generator().manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), generator=draw))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), generator=draw))
    return left @ torch.diag(torch.tensor(values)) @ right.T


def test_signal_to_noise_is_that_of_the_known_singular_values() -> None:
    # quartiles 2 and 4: threshold 2 / 1.349 * (1 + sqrt(5 / 20)) = 2.2239, signal 8 + 4 + 3, noise 2 + 1
    assert signal_to_noise(known_matrix([8.0, 4.0, 3.0, 2.0, 1.0], 5, 20)) == pytest.approx(15 / 3 / 8, rel=1e-4)
    assert signal_to_noise(known_matrix([8.0, 4.0, 3.0, 2.0, 1.0], 20, 5)) == pytest.approx(15 / 3 / 8, rel=1e-4)
    # in a square the threshold is 2.9651, so that 2.5 is noise
    assert signal_to_noise(known_matrix([8.0, 4.0, 2.5, 2.0, 1.0], 5, 5)) == pytest.approx(12 / 5.5 / 8, rel=1e-4)
    assert signal_to_noise(torch.zeros(3, 4)) == 0
    assert signal_to_noise(torch.diag(torch.tensor([2.0, 2.0]))) == float("inf")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("percent", [25, 50, 100])
def test_spectrum_trains_the_share_of_each_kind_of_matrix(name: str, percent: float) -> None:
    model = Spectrum(percent).apply(MODELS[name]())
    kinds: dict[str, int] = {}
    for path in trainable(model):
        assert path.split(".")[2].isdigit()
        if path.endswith("weight"):
            kind = path.split(".", 3)[3]
            kinds[kind] = kinds.get(kind, 0) + 1
    blocks = model.config.num_hidden_layers
    assert len(kinds) == (4 if "gpt2" in name else 7)
    assert set(kinds.values()) == {int(blocks * percent / 100 + 0.5)}


def test_spectrum_takes_the_matrix_with_the_clearest_signal() -> None:
    model = MODELS["llama-untied"]()
    values = [20.0, *torch.linspace(1, 0.5, 15).tolist()]
    with torch.no_grad():
        find_blocks(model)[2].self_attn.k_proj.weight.copy_(known_matrix(values, 16, 16) * 1e-3)
    chosen = {path for path in trainable(Spectrum(25, also_train=["lm_head"]).apply(model)) if "k_proj" in path}
    assert chosen == {"model.layers.2.self_attn.k_proj.weight"}
    assert "lm_head.weight" in trainable(model)
    assert len(find_blocks(model)) == BLOCKS
