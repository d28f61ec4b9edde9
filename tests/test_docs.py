"""The table of strategies names what there is and counts it right, and the example of a strategy of one's own works."""

import re
from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.models import load_model
from efficient_rl.strategies.static import LastK
from efficient_rl.training.grpo import Optimizations
from efficient_rl.training.trunk import frozen_depth
from tests.conftest import ROOT, tiny_run
from tests.small_models import trainable
from tests.test_trainer import make

STRATEGIES = (ROOT / "docs" / "strategies.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()
ROWS = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `(\w+)` \|(.+)\|$", STRATEGIES, re.MULTILINE)
}
TOTAL = 323_776


def test_the_table_names_every_option_once() -> None:
    assert sorted(ROWS) == group_options()["strategy"]
    assert len(re.findall(r"^\| `\w+` \|", STRATEGIES, re.MULTILINE)) == len(ROWS)


@pytest.mark.parametrize("option", sorted(ROWS))
def test_the_table_counts_what_trains_and_says_what_it_saves(option: str) -> None:
    _, paper, count, saves, changes = ROWS[option]
    strategy = tiny_run(f"strategy={option}").strategy.build()
    model = strategy.apply(load_model(tiny_run().model))
    names = trainable(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == f"{trained:,}"
    found = re.search(r"arXiv:(\d{4}\.\d{5})", (config_folder("conf") / "strategy" / f"{option}.yaml").read_text())
    assert paper == (found[1] if found else "")
    dynamic = strategy.schedule(model, 0, 10) is not None
    assert changes == ("yes" if dynamic else "no")
    if not dynamic:
        assert saves.startswith("both") == (frozen_depth(model, names) > 0)
        assert (saves in ("nothing", "optimizer state")) == (trained == TOTAL)


def written(folder: Path) -> None:
    """Write the files that the page shows."""
    for path, text in re.findall(r"^    # (\S+\.(?:py|yaml))\n((?:    .*\n|\n(?=\n*    ))+)", STRATEGIES, re.MULTILINE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(re.sub(r"^    ", "", text, flags=re.MULTILINE))


def test_a_strategy_of_ones_own_works_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    runs = [parse_run(point) for point in expand(["strategy=every_nth", "strategy.n=2,3"], "options")]
    models = [run.strategy.build().apply(load_model(run.model)) for run in runs]
    blocks = [{name.split(".")[2] for name in trainable(model)} for model in models]
    assert blocks == [{"5", "3", "1"}, {"5", "2"}]


def test_the_page_on_training_names_every_saving_phase_and_part(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), beta=0.04, num_iterations=2, max_steps=1)
    trainer.train()
    found = trainer.meter.take_bytes()
    phases = {name.removesuffix("_peak") for name in found if name.endswith("_peak")}
    parts = {f"{name}_bytes" for name in found if not name.endswith("_peak")}
    assert {"generation", "old_policy", "reference"} <= phases
    assert phases | parts | set(Optimizations.__dataclass_fields__) <= set(re.findall(r"`(\w+)", TRAINING))
