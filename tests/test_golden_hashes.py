"""Finished runs of users stay finished: these configurations keep the hashes that they were first run with.

A hash that changes here makes every user of that configuration train it again. Add rows; never change one.
"""

from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run

OWN = "_target_: tests.own_parts.OwnStrategy\nk: 1\nalso_train: []\n"
PROBLEMS = '{"question": "1 + 1", "answer": "2"}\n{"question": "2 + 3", "answer": "5"}\n'
GOLDEN = {
    "": "06cd97f0f174f764",
    "strategy=first_k strategy.k=3 seed=7": "649774fbfc49b336",
    "strategy=last_k strategy.also_train=[norm]": "af57c9e4220070bb",
    "strategy=lora lora.rank=16 lora.target_modules=[q_proj,v_proj]": "22393838a6a5ec42",
    "strategy=lora lora=rank1 reward=dapo": "d445966e9bc66f22",
    "strategy=dora grpo.beta=0.04": "ba4ce13d50c100fe",
    "strategy=pissa grpo.learning_rate=1e-5": "a0d38b177741fd03",
    "strategy=adalora reward=kimi": "82ca53a9b2a697f2",
    "strategy=lora_xs grpo.num_iterations=2": "d22ef886691c4aff",
    "strategy=autofreeze curriculum=cosine": "67d4aee9c4780154",
    "strategy=slimfit curriculum=sec": "4e52fdcd886181a9",
    "strategy=lisa curriculum=dapo": "a100c5f0827c1e6a",
    "strategy=badam curriculum=learnability": "e59ee412aa5773ff",
    "strategy=auto_rgn curriculum=staged task=arithmetic": "64ea25bacb3725e2",
    "strategy=spectrum task=mixture": "e592cd06eef98690",
    "strategy=galore task=chain reward=process": "77c97a5bef95a57c",
    "strategy=apollo task=fractions prompt=r1_zero reward=r1": "dda13931d5c0afab",
    "strategy=bitfit task=gcd reward=language": "a067eaf5d48ee241",
    "strategy=tinylora task=equations curriculum=adarft": "b959206b5dada614",
    "strategy=full task=table": "6f81a0f5c9b642a5",
    "strategy=full task=countdown_tinyzero prompt=tinyzero_base reward=tinyzero_countdown": "9eb9c290b1c7cb53",
    "strategy=lora task=gsm8k model=qwen2.5_0.5b prompt=chat_boxed reward=open_r1": "a9c642951c48e6c1",
    "strategy=last_k task=math model=llama3.2_1b reward=trl_think_format": "70770e4afd2b362f",
    "strategy=lora eval.sets=[arithmetic,countdown] eval.problems=64": "5f6f9002b6fa188f",
    "strategy=full eval.split=validation": "3d19841fdd900941",
    "strategy=last_k prompt.date=2025-12-31": "504e9ea422de4ba2",
    "model=local model.path=package:nano/model task=arithmetic": "20c959cd63f385b8",
    "strategy=mine": "9585e2e819df7c2c",
}


@pytest.mark.parametrize("overrides", GOLDEN, ids=lambda text: text or "defaults")
def test_a_configuration_keeps_its_hash(overrides: str, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(PROBLEMS)
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text(OWN)
    (point,) = expand(overrides.split(), str(tmp_path))
    assert parse_run(point).config_hash == GOLDEN[overrides]


def test_the_golden_hashes_differ() -> None:
    assert len(set(GOLDEN.values())) == len(GOLDEN) >= 12
