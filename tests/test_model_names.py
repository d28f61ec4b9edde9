"""A run is recorded under the name and with the size of the model that it loads."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from efficient_rl.config.model_files import count_parameters
from efficient_rl.config.run_config import from_dict, to_dict
from efficient_rl.errors import ConfigError
from efficient_rl.models import load_model
from tests.conftest import execute_tiny, tiny_run
from tests.odd_models import byte_tokenizer, llama, random_model


@pytest.mark.parametrize("option", ["qwen2.5_0.5b", "smollm2_135m", "nano", "local"])
def test_a_folder_gives_the_name_and_the_size(option: str, tmp_path: Path) -> None:
    folder = random_model(tmp_path / "my-own", byte_tokenizer())
    model = tiny_run(f"model={option}", f"model.path={folder}").model
    assert (model.name, model.parameters) == ("my-own", sum(p.numel() for p in load_model(model).parameters()))


def test_names_and_sizes_of_other_paths() -> None:
    own = tiny_run("model=qwen2.5_0.5b").model
    assert (own.name, own.parameters) == ("qwen2.5_0.5b", 494_032_768)
    same = tiny_run("model=qwen2.5_0.5b", f"model.path={own.path}").model
    assert (same.name, same.parameters) == (own.name, own.parameters)
    other = tiny_run("model=qwen2.5_0.5b", "model.path=Qwen/Qwen2.5-7B").model
    assert (other.name, other.parameters) == ("Qwen2.5-7B", None)
    told = tiny_run("model=qwen2.5_0.5b", "model.path=Qwen/Qwen2.5-7B", "model.parameters=7615616512").model
    assert told.parameters == 7_615_616_512
    nano = tiny_run().model
    assert (nano.name, nano.parameters) == ("nano", 323_776)


def test_a_path_with_another_ending_or_of_a_gguf_file_names_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_model(tmp_path / "my-own", byte_tokenizer())
    monkeypatch.chdir(folder)
    for path in (f"{folder}/", "../my-own", ".", f"{folder}/./"):
        assert tiny_run("model=local", f"model.path={path}").model.name == "my-own"
    (folder / "tiny-q8.gguf").touch()
    assert tiny_run("model=local", f"model.path={folder}", "model.gguf_file=tiny-q8.gguf").model.name == "tiny-q8"


def test_the_hash_is_the_same_whatever_the_model_is_called(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "my-own", byte_tokenizer())
    rate = "grpo.learning_rate=1e-6"
    hashes = {
        tiny_run(f"model={option}", f"model.path={folder}", rate, "model.prompt=chat", "model.dtype=auto").config_hash
        for option in ("qwen2.5_0.5b", "smollm2_135m", "nano", "local")
    }
    assert len(hashes) == 1


def test_the_record_of_a_run_names_what_was_loaded(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "my-own", byte_tokenizer())
    run = (
        "model=qwen2.5_0.5b",
        f"model.path={folder}",
        "task=arithmetic",
        "grpo.max_steps=1",
        "grpo.max_completion_length=4",
    )
    result, record = execute_tiny(tmp_path / "runs", *run)
    config = from_dict(yaml.safe_load((record.folder / "config.yaml").read_text()))
    assert (result.model, config.model.name) == ("my-own", "my-own")
    assert result.total_params == config.model.parameters
    assert config.flat()["model.name"] == "my-own"
    assert from_dict(to_dict(config)) == config


def test_local_needs_a_path() -> None:
    for given in ((), ("model.path=''",), ("model.path=null",)):
        with pytest.raises(ConfigError, match=r"model\.path=.* must be a folder or a hub name"):
            tiny_run("model=local", *given)


def test_parameters_are_counted_over_all_files_and_not_guessed_from_damaged_ones(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(llama(100))
    count = sum(p.numel() for p in model.parameters())
    model.save_pretrained(tmp_path / "cut", max_shard_size="20KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    assert count_parameters(tmp_path / "cut", "") == count
    tied = AutoModelForCausalLM.from_config(llama(100, tie_word_embeddings=True))
    tied.save_pretrained(tmp_path / "tied")
    assert count_parameters(tmp_path / "tied", "") == sum(p.numel() for p in tied.parameters()) < count
    torch.save({}, tmp_path / "tied" / "model.safetensors")
    assert count_parameters(tmp_path / "tied", "changed") is None
    (tmp_path / "tied" / "model.safetensors").write_bytes(b"\xff" * 30)
    assert count_parameters(tmp_path / "tied", "changed again") is None
    assert count_parameters(tmp_path, "") is None
