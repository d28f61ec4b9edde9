"""Claims: their files, what a verdict follows from, and the page, on real runs of the embedded model."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from analysis.claims.__main__ import to_markdown, write_page
from analysis.claims.evaluate import ClaimResult, CountChanges, by_seed, evaluate, verdict_of
from analysis.claims.figures import criterion, estimate_text
from analysis.claims.spec import Check, Claim, read_claim, read_claims
from analysis.claims.weight_changes import WeightChanges, count_changes
from analysis.data.load import Run
from analysis.stats.intervals import Estimate
from efficient_rl.errors import ConfigError
from tests.analysis_data import result
from tests.conftest import ROOT, TINY, Sweep, environment

CLAIMS = ROOT / "sweeps" / "claims"
RATIO = Check("accuracy", "ratio", "new", "old", at_least=0.9)


def run_of(strategy: str, seed: int, accuracy: float, rate: float = 1.0, **values: Any) -> Run:
    params = {"strategy.name": strategy, "seed": seed, "grpo.learning_rate": rate}
    known = {"total_params": 100, "accuracy_before": 0.1, "peak_memory_bytes": {"backward": 1000}, "train_seconds": 10.0}
    found = result(accuracy, 10, **{**known, "problems": 4, "code_version": "a", "samples": 0, **values})
    return Run(f"{strategy}{seed}{rate}", params, found)


def claim_of(*checks: Check, tuned: str | None = None) -> Claim:
    arms = {name: f'strategy.name == "{name}"' for name in ("new", "old")}
    return Claim("it", "Is it so?", "Somebody 2020", "It is so.", arms, checks, tuned)


def no_changes(run: str) -> WeightChanges:
    raise AssertionError(run)


def judged(claim: Claim, runs: list[Run], changes: CountChanges = no_changes) -> ClaimResult:
    return evaluate(claim, runs, changes)


# Files


def test_every_claim_of_the_project_can_be_read_and_has_five_seeds_and_its_arms() -> None:
    claims = read_claims(CLAIMS)
    assert {claim.name for claim in claims} >= {"elsa", "autofreeze", "slimfit", "lisa", "pe_rlhf", "e2h", "learnability"}
    done = subprocess.run(
        [sys.executable, "-m", "analysis.claims", "reports=page"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # every arm has runs, or it is an error
    for each in json.loads(Path("page/claims/claims.json").read_text()):
        assert each["finished"] == 0
        assert each["verdict"] == "undecided"
        assert each["runs"] % 5 == 0, each["name"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": None}, "'source' is missing"),
        ({"sources": "x"}, "did you mean 'source'"),
        ({"arms": ["full"]}, "arms must be names with filter rules"),
        ({"checks": []}, "at least one check"),
        ({"checks": [{"measure": "accuracy", "at_least": 1}]}, "one of ratio, difference, value"),
        ({"checks": [{"measure": "acuracy", "value": "full", "at_least": 1}]}, "did you mean 'accuracy'"),
        ({"checks": [{"measure": "accuracy", "value": "ful", "at_least": 1}]}, "did you mean 'full'"),
        ({"checks": [{"measure": "accuracy", "ratio": "full", "at_least": 1}]}, "must name two arms"),
        ({"checks": [{"measure": "accuracy", "value": "full"}]}, "has at_least or above"),
        ({"checks": [{"measure": "accuracy", "value": "full", "at_least": 1, "above": 1}]}, "has at_least or above"),
        ({"checks": [{"measure": "accuracy", "value": "full", "at_least": True}]}, "must be a number"),
        ({"checks": [{"measure": "accuracy", "value": "full", "least": 1}]}, "unknown key 'least'"),
        ({"checks": [{"measure": "best seed", "value": "full", "at_least": 1}]}, "needs `tuned: seed`"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content: dict[str, Any] = {
        "source": "x",
        "said": "y",
        "arms": {"full": 'strategy.name == "full"'},
        "checks": [{"measure": "accuracy", "value": "full", "at_least": 0.5}],
    }
    content = {key: value for key, value in {**content, **change}.items() if value is not None}
    path = tmp_path / "it.yaml"
    path.write_text("# Is it?\n" + yaml.safe_dump({"claim": content, "overrides": {"strategy": "full"}}))
    with pytest.raises(ConfigError, match=r"it\.yaml") as caught:
        read_claim(path)
    assert said in str(caught.value)


def test_a_folder_without_claims_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no claim"):
        read_claims(tmp_path)


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.91, 0.99, "holds"), (0.89, 0.99, "undecided"), (0.7, 0.89, "does not hold")]
)
def test_a_lower_bound_is_judged_by_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert verdict_of(RATIO, Estimate((low + high) / 2, low, high), 5) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(6, 9, "holds"), (4, 9, "undecided"), (6, 21, "undecided"), (1, 4, "does not hold"), (21, 30, "does not hold")],
)
def test_two_bounds_must_hold_the_interval_between_them(low: float, high: float, verdict: str) -> None:
    check = Check("accuracy", "value", "new", None, at_least=5, at_most=20)
    assert verdict_of(check, Estimate((low + high) / 2, low, high), 5) == verdict


def test_above_is_not_at_least() -> None:
    same = Estimate(0.0, 0.0, 0.0)
    assert verdict_of(Check("accuracy", "difference", "new", "old", above=0), same, 5) == "does not hold"
    assert verdict_of(Check("accuracy", "difference", "new", "old", at_least=0), same, 5) == "holds"


def test_fewer_than_five_seeds_decide_nothing() -> None:
    assert verdict_of(RATIO, Estimate(2.0, 1.9, 2.1), 4) == "undecided"
    assert verdict_of(RATIO, Estimate(2.0), 5) == "undecided"
    assert verdict_of(RATIO, None, 5) == "undecided"


def test_a_claim_fails_with_one_check_and_holds_with_all() -> None:
    runs = [run_of("new", seed, 0.5, train_seconds=5.0 + seed / 10) for seed in range(5)]
    runs += [run_of("old", seed, 0.4 + seed / 1000, train_seconds=10.0) for seed in range(5)]
    faster = Check("training seconds", "ratio", "old", "new", at_least=1.5)
    smaller = Check("peak memory", "ratio", "new", "old", at_most=0.5)
    assert judged(claim_of(RATIO, faster), runs).verdict == "holds"
    failed = judged(claim_of(RATIO, smaller), runs)
    assert [each.verdict for each in failed.checks] == ["holds", "does not hold"]
    assert failed.verdict == "does not hold"
    assert failed.seeds == 5
    assert failed.checks[0].estimate is not None
    assert failed.checks[0].estimate.value == pytest.approx(0.5 / 0.402)


def test_accuracies_are_compared_problem_by_problem_and_seed_by_seed() -> None:
    rng = np.random.default_rng(0)
    luck = rng.integers(0, 3, (5, 30))
    runs = [run_of("old", seed, float(luck[seed].mean() / 4), samples=4, right=tuple(luck[seed])) for seed in range(5)]
    runs += [
        run_of("new", seed, float((luck[seed].mean() + 1) / 4), samples=4, right=tuple(luck[seed] + 1)) for seed in range(5)
    ]
    found = judged(claim_of(Check("accuracy", "difference", "new", "old", above=0.24)), runs).checks[0].estimate
    assert found is not None  # every pair differs by the same, however lucky the seed and hard the problem
    assert (found.low, found.value, found.high) == (pytest.approx(0.25), pytest.approx(0.25), pytest.approx(0.25))


def test_only_common_seeds_count() -> None:
    runs = [run_of("new", seed, 0.5) for seed in range(6)] + [run_of("old", seed, 0.5) for seed in range(1, 9)]
    assert judged(claim_of(RATIO), runs).seeds == 5
    unfinished = [replace(run, result=None) for run in runs]
    nothing = judged(claim_of(RATIO), unfinished)
    assert (nothing.finished, nothing.seeds, nothing.verdict) == (0, 0, "undecided")
    assert estimate_text(nothing.checks[0]) == "not run"


def test_an_arm_without_runs_and_one_with_two_kinds_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"no run .* arm 'old'"):
        judged(claim_of(RATIO), [run_of("new", 0, 0.5)])
    with pytest.raises(ConfigError, match="two runs of seed 0"):
        judged(claim_of(RATIO), [run_of("new", 0, 0.5), run_of("new", 0, 0.5, rate=2.0), run_of("old", 0, 0.5)])
    claim = replace(claim_of(RATIO), arms={"new": "strategy.nam == 1", "old": "seed == 0"})
    with pytest.raises(ConfigError, match=r"strategy\.nam"):
        judged(claim, [run_of("new", 0, 0.5)])


def test_a_tuned_arm_never_chooses_by_the_seed_that_it_counts() -> None:
    # Seed 0 alone would choose the rate 3, the other seeds choose 1: seed 0 must count with rate 1.
    runs = [run_of("new", seed, 0.5, rate=1.0) for seed in range(5)]
    runs += [run_of("new", seed, 0.9 if seed == 0 else 0.1, rate=3.0) for seed in range(5)]
    chosen = by_seed(runs, "grpo.learning_rate")
    assert [chosen[str(seed)].params["grpo.learning_rate"] for seed in range(5)] == [1.0] * 5
    assert by_seed(runs[:1] + runs[5:6], "grpo.learning_rate") == {}  # one seed has no others


def test_the_ratio_of_best_settings_is_geometric_and_finds_a_peak_between_those_tried() -> None:
    def height(rate: float, best: float) -> float:
        return 0.6 - 0.05 * np.log(rate / best) ** 2

    rates = (1e-4, 3e-4, 1e-3, 3e-3)
    runs = [run_of("old", seed, height(rate, 2e-4), rate=rate) for seed in range(5) for rate in rates]
    runs += [run_of("new", seed, height(rate, 1e-3), rate=rate) for seed in range(5) for rate in rates]
    best = Check("best grpo.learning_rate", "ratio", "new", "old", at_least=4, at_most=6)
    found = judged(claim_of(best, tuned="grpo.learning_rate"), runs)
    assert found.checks[0].estimate is not None
    assert found.checks[0].estimate.value == pytest.approx(5.0, rel=1e-6)
    assert found.verdict == "holds"
    assert found.checks[0].note == ""
    ends = [run_of(name, seed, rate, rate=rate) for name in ("new", "old") for seed in range(5) for rate in rates]
    assert "10 of 10 best values are at the end" in judged(claim_of(best, tuned="grpo.learning_rate"), ends).checks[0].note


# Changed weights


def test_changed_weights_are_counted_in_float32_and_as_bfloat16_shows_them(tmp_path: Path) -> None:
    before = {
        "model.layers.0.a.weight": torch.ones(4),
        "model.layers.1.a.weight": torch.ones(2, 2),
        "norm.weight": torch.ones(2),
    }
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["model.layers.0.a.weight"][:3] += 1e-5  # bfloat16 has 8 bits: 1 + 1e-5 rounds to 1
    after["model.layers.1.a.weight"][0, 0] = 2.0
    for name, tensors in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    found = count_changes(tmp_path / "before", tmp_path / "after")
    assert (found.share, found.rounded_share, found.matrices) == (4 / 10, 1 / 10, 2 / 3)
    assert found.by_part(found.counted) == {"block 0": 0.75, "block 1": 0.25, "norm": 0.0}
    save_file({"other": torch.ones(1)}, tmp_path / "after" / "model.safetensors")
    with pytest.raises(ConfigError, match="other weights"):
        count_changes(tmp_path / "before", tmp_path / "after")


@pytest.mark.slow
def test_the_page_of_real_runs_says_what_they_measured_and_what_is_missing(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("sweep=claims/small_subnetworks", "seed=0,1", "tracking.uri=none")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = ["claims=small_subnetworks,elsa", "seed=0,1,2", *(text for text in TINY)]
    done = subprocess.run(
        [sys.executable, "-m", "analysis.claims", *asked],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "reports" / "claims"
    assert {path.name for path in folder.iterdir()} == {
        *("claims.html", "claims.md", "claims.json"),
        *(f"{name}.{kind}" for name in ("margins", "changed_weights") for kind in ("png", "pdf")),
    }
    whole, elsa = json.loads((folder / "claims.json").read_text())
    assert (whole["finished"], whole["runs"], whole["seeds"]) == (2, 3, 2)
    shares = whole["checks"][0]["estimate"]
    assert 0.5 < shares["value"] <= 1.0  # Adam moves nearly every weight in three steps
    assert whole["verdict"] == "undecided"  # two seeds
    assert "elsa: 2 of 6 runs are finished" in (folder / "claims.md").read_text()
    assert (elsa["checks"][0]["measured"], elsa["seeds"]) == ("not run", 0)


def test_a_claim_that_does_not_exist_is_an_error_with_the_nearest_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis.claims", "claims=elza"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown claim 'elza'; did you mean 'elsa'?")


def test_the_page_shows_every_check_as_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [run_of(name, seed, 0.4 + 0.01 * rng.normal()) for name in ("new", "old") for seed in range(5)]
    checks = (
        RATIO,
        Check("accuracy", "difference", "new", "old", above=-0.004),
        Check("peak memory", "value", "new", None, at_most=10),
    )
    found = judged(replace(claim_of(*checks), said="It <is> so & so."), runs)
    page = write_page([(found, [])], tmp_path)[0].read_text()
    assert "It &lt;is&gt; so &amp; so." in page
    assert [criterion(check) for check in checks] == [
        "accuracy: new / old at least 0.9",
        "accuracy: new - old above -0.4 points",
        "peak memory: new at most 10 B",
    ]
    assert re.fullmatch(r"[+-]\d\.\d points \[[+-]\d\.\d, [+-]\d\.\d\]", estimate_text(found.checks[1]))
    table = to_markdown([found]).splitlines()
    assert sum(line.startswith("| ") for line in table) == 2 + len(checks)
    assert "**does not hold**" in "".join(table)  # 1,000 bytes are more than 10
