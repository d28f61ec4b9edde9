"""A search: the space it reads, the trials it counts, and what a kill, a repeat or a limit does to it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from efficient_rl.config.compose import Composer, expand
from efficient_rl.config.options import group_options
from efficient_rl.config.overrides import parse_overrides
from efficient_rl.config.run_config import parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.search.objectives import parse_constraints, parse_objectives
from efficient_rl.search.space import InfeasibleError, Space
from efficient_rl.search.summary import importances
from efficient_rl.sweep.__main__ import main
from tests.conftest import ROOT, environment, slow_unless, tiny_run
from tests.fake_launcher import OPTION, fake_arguments, result

STRATEGIES = "strategy=choice(first_k,last_k,lora)"
RATE = "grpo.learning_rate=tag(log,interval(1e-5,1e-2))"


def arguments(*overrides: str, name: str = "s") -> list[str]:
    """The command's arguments, for runs that only look like training."""
    named = any(text.startswith("name=") for text in overrides)
    return ["-m", *fake_arguments(*overrides, *(() if named else (f"name={name}",)))]


def search(*overrides: str, name: str = "s") -> int:
    return main(arguments(*overrides, name=name))


def study(name: str = "s") -> optuna.Study:
    """The study as any program of Optuna opens it."""
    journal = Path("outputs/sweeps") / name / "study.journal"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(journal))))


def launched() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("launches.jsonl").read_text().splitlines()]


def summary(name: str = "s") -> dict[str, Any]:
    read: dict[str, Any] = json.loads((Path("outputs/sweeps") / name / "search.json").read_text())
    return read


def first_tries(told: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in told.trials if "repeat_of" not in trial.user_attrs and "unfit" not in trial.user_attrs]


# The space


def space_of(overrides: list[str], rules: Sequence[str] = ()) -> Space:
    return Space(Composer(), parse_overrides(overrides), rules)


def proposed(space: Space, **params: Any) -> Any:
    """The run of a trial with these values; whatever is not asked for must not be given."""
    fixed = optuna.trial.FixedTrial({key.replace("__", "."): value for key, value in params.items()})
    run = space.propose(fixed)
    assert set(fixed.params) == {key.replace("__", ".") for key in params}
    return run


def test_a_key_is_asked_for_only_where_the_chosen_option_has_it_and_it_reaches_the_run() -> None:
    space = space_of([STRATEGIES, "strategy.k=range(1,6)", "lora.rank=choice(1,4,16)"])
    assert proposed(space, strategy="first_k", strategy__k=3).strategy.arguments["k"] == 3
    assert proposed(space, strategy="lora", lora__rank=4).strategy.arguments["rank"] == 4


def test_options_that_make_no_difference_are_not_asked_for_wherever_they_stand() -> None:
    space = space_of(["lora=choice(default,rank1)", "strategy=choice(full,lora)"])
    assert proposed(space, strategy="full").strategy.name == "full"
    assert proposed(space, strategy="lora", lora="rank1").strategy.arguments["rank"] == 1


def test_a_value_that_replaces_a_reference_makes_what_it_referred_to_inert() -> None:
    space = space_of(["strategy=lora", "strategy.rank=2", "lora.rank=choice(1,4)", "seed=choice(0,1)"])
    assert proposed(space, seed=1).strategy.arguments["rank"] == 2


def test_a_trial_and_a_point_of_a_sweep_with_the_same_values_are_the_same_run() -> None:
    space = space_of(
        ["strategy=choice(first_k,lora)", "lora.rank=choice(1,4)", "grpo.beta=range(0,1,0.1)", "seed=range(0,3)"]
    )
    run = proposed(space, strategy="lora", lora__rank=4, grpo__beta=0.30000000000000004, seed=2)
    assert run == parse_run(expand(["strategy=lora", "lora.rank=4", "grpo.beta=0.3", "seed=2"])[0])


def test_intervals_ranges_and_scales_reach_optuna() -> None:
    space = space_of(
        [
            "strategy=lora",
            RATE,
            "lora.rank=tag(log,int(interval(1,64)))",
            "lora.dropout=interval(0,0.5)",
            "seed=range(1,9,3)",
        ]
    )
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    run = space.propose(trial)
    wanted = {
        "grpo.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
        "lora.rank": optuna.distributions.IntDistribution(1, 64, log=True),
        "lora.dropout": optuna.distributions.FloatDistribution(0, 0.5),
        "seed": optuna.distributions.IntDistribution(1, 7, step=3),
    }
    assert trial.distributions == wanted
    assert run.strategy.arguments["rank"] == trial.params["lora.rank"]
    assert run.grpo.learning_rate == trial.params["grpo.learning_rate"]


def test_lists_are_values_too() -> None:
    space = space_of(["task=arithmetic", "task.digits=choice([1],[1,2])"])
    assert proposed(space, task__digits="[1, 2]").task.arguments["digits"] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grpo.learning_rate=tag(log,interval(0,1))"], "logarithmic scale needs numbers above 0"),
        (["lora.rank=tag(log,range(1,9,2))", "strategy=lora"], "no step but 1"),
        (["grpo.learning_rate=tag(exp,interval(1,2))"], "unknown tag 'exp'; valid: log"),
        (["strategy=interval(1,2)"], "strategy needs choice"),
        (["strategy.depth=range(1,3)", STRATEGIES], r"unknown key 'strategy.depth'"),
        (["strategy=choice(first_k,lorra)"], "did you mean 'lora'"),
        (["strategy=first_k", "strategy.k=9", "seed=choice(0,1)"], "k=9 exceeds the model's 6 blocks"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_runs(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(overrides)


def test_an_interval_without_a_search_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", RATE]) == 2
    assert "add search=tpe" in capsys.readouterr().err


def test_a_filter_drops_proposals_and_knows_the_names_of_every_option() -> None:
    space = space_of([STRATEGIES, "strategy.k=range(1,6)"], ["strategy.k < 3 or strategy.name == 'lora'"])
    assert proposed(space, strategy="lora").strategy.name == "lora"
    with pytest.raises(InfeasibleError, match=r"the filter .* drops it"):
        proposed(space, strategy="first_k", strategy__k=4)


# Objectives and constraints


def test_constraints_measure_by_how_much_a_bound_is_broken() -> None:
    measured = result(tiny_run("strategy=first_k", "strategy.k=3"), 1)  # 3,000 parameters and 3,000,000 bytes
    texts = [
        "memory/total_peak_bytes < 24e5",
        "params/trainable>=3000",
        "params/trainable > 3000",
        "params/trainable <= 6e3",
    ]
    violations = [rule.violation(measured) for rule in parse_constraints(texts)]
    assert violations[0] == pytest.approx(0.25)
    assert violations[1] == 0
    assert violations[2] > 0, "a strict bound is not kept by being reached"
    assert violations[3] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    "rule",
    [
        "tokens",
        "tokens < many",
        "tokens < 1 or 1",
        "__import__('os').getcwd() < 1",
        "tokens < 1.2.3",
        "tokens == 3",
        "tokens < nan",
    ],
)
def test_what_is_no_bound_is_no_constraint(rule: str) -> None:
    with pytest.raises(ConfigError, match="is not a bound such as"):
        parse_constraints([rule])


def test_unknown_figures_and_directions_are_named_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'params/trained', which no result has; did you mean 'params/trainable'"):
        parse_constraints(["params/trained < 1"])
    with pytest.raises(ConfigError, match=r"'acuracy', which no result has; did you mean 'accuracy'"):
        parse_objectives({"acuracy": "maximize"})
    with pytest.raises(ConfigError, match="use maximize or minimize"):
        parse_objectives({"accuracy": "up"})
    with pytest.raises(ConfigError, match="name at least one"):
        parse_objectives({"accuracy": None})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search=pareto", "seed=1"], "a search needs a space"),
        (["search=tpe", RATE, "search.trials=0"], "search.trials=0 must be at least 1"),
        (["search=tpe", RATE, "search.trials=null"], "set one of them"),
        (["search=tpe", RATE, "search.trails=3"], "unknown key 'search.trails'"),
        (["search=tpe", RATE, "force=true"], "does no run twice"),
        (["search=tpe", RATE, "+search.sampler.startup=3"], "search.sampler must .* unexpected keyword argument 'startup'"),
        ([STRATEGIES, "+search.sampler.multivariate=true"], "read with search=<method> only"),
        (["search=pareto", RATE, "search.pruner={_target_:optuna.pruners.MedianPruner}"], "not by 2 objectives"),
        (["search=tpe", RATE, 'search.fixed=["grpo.learning_rate=1"]'], "lies outside of the space; .* 1e-05 to 0.01"),
        (["search=tpe", RATE, 'search.fixed=["seed=1"]'], "key of the space: grpo.learning_rate"),
        (["search=tpe", RATE, "search.fixed=[[1,2]]"], r"search.fixed=\[\[1, 2\]\] must be a list of overrides"),
        (["search=tpe", RATE, """search.fixed=["grpo.learning_rate='"]"""], "No closing quotation.*; close its quotes"),
        (["search=tpe", RATE, "search.pruner=median"], "search.pruner='median' must be null or a pruner"),
        (["search=hyperband", RATE, "search.pruner.min_resource=abc"], "search.pruner cannot judge a trial"),
        (["search=tpe", RATE, "search.sampler.n_startup_trials=x"], "search.sampler must .* '<' not supported"),
        (["search=tpe", RATE, "search.sampler._target_=optuna.samplers.Foo"], "Error loading 'optuna.samplers.Foo': Mod"),
        (["search=tpe", RATE, "search.constraints=[tokens]"], "is not a bound such as"),
        (["search=tpe,random", RATE], "search is one for the whole sweep"),
        (["search=per_arm", STRATEGIES, RATE], "leave grpo.learning_rate out"),
        (["search=per_arm", STRATEGIES, "seed=0,1"], "search.test_seeds says how many"),
        (["search=per_arm", "strategy=lora"], "compares arms, and this is 1"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_runs(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(*overrides) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("launches.jsonl").exists()


# What is counted


def test_the_number_of_trials_is_exact_and_the_launcher_never_has_more_than_it_may() -> None:
    assert search("search=random", STRATEGIES, RATE, "search.trials=7", "search.parallel=3") == 0
    assert [trial.state for trial in study().trials] == [TrialState.COMPLETE] * 7
    runs = [entry["run"] for entry in launched()]
    assert len(runs) == len(set(runs)) == 7
    assert max(entry["in_hand"] for entry in launched()) == 3
    manifest = json.loads(Path("outputs/sweeps/s/sweep.json").read_text())
    assert [run["hash"] for run in manifest["runs"]] == [trial.user_attrs["config_hash"] for trial in study().trials]


def test_the_same_command_does_nothing_more_and_one_with_more_trials_goes_on() -> None:
    search("search=tpe", RATE, "search.trials=3")
    assert search("search=tpe", RATE, "search.trials=3") == 0
    assert len(launched()) == 3
    assert search("search=tpe", RATE, "search.trials=5") == 0
    assert len(launched()) == len(study().trials) == 5


def test_a_run_is_never_done_twice_and_a_used_up_space_ends_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert search("search=tpe", "strategy=choice(first_k,last_k)", "strategy.k=choice(1,2)", "search.trials=9") == 0
    assert len(launched()) == len(first_tries(study())) == 4
    assert "the space is used up" in capsys.readouterr().out
    repeats = [trial for trial in study().trials if "repeat_of" in trial.user_attrs]
    assert repeats
    for trial in repeats:
        assert trial.values == study().trials[trial.user_attrs["repeat_of"]].values


def test_repeats_count_as_trials_where_that_is_asked() -> None:
    search("search=random", "strategy=choice(first_k,last_k)", "search.trials=9", "search.count_repeats=true")
    assert len(study().trials) == 9
    assert len(launched()) == 2
    assert summary()["counts"]["repeats"] == 7


def test_a_proposal_that_already_runs_waits_for_it() -> None:
    overrides = ("search=random", "strategy=choice(first_k,last_k)", "search.parallel=3", "search.trials=6")
    search(*overrides, "search.count_repeats=true")
    assert Counter(trial.state for trial in study().trials) == {TrialState.COMPLETE: 6}
    assert len(launched()) == 2


def test_a_run_of_another_sweep_is_told_at_once_and_counts() -> None:
    search("strategy=first_k", "eval.split=validation", name="other")
    assert search("search=random", "strategy=choice(first_k,last_k)", "search.trials=2") == 0
    assert len(launched()) == 2, "one by the sweep, one by the search"
    assert len(first_tries(study())) == 2


def test_fixed_trials_come_first_and_once() -> None:
    fixed = 'search.fixed=["strategy=lora grpo.learning_rate=1e-3",["strategy=first_k"]]'
    search("search=tpe", STRATEGIES, RATE, fixed, "search.trials=3")
    search("search=tpe", STRATEGIES, RATE, fixed, "search.trials=5")
    trials = study().trials
    assert len(trials) == 5
    assert trials[0].params == {"strategy": "lora", "grpo.learning_rate": 1e-3}
    assert trials[1].params["strategy"] == "first_k"
    assert sum("fixed_params" in trial.system_attrs for trial in trials) == 2


def test_a_budget_in_hours_ends_the_search_and_counts_earlier_commands() -> None:
    fake = OPTION.replace("poll_seconds: 0.0", "poll_seconds: 0.1")
    given = arguments("search=random", RATE, "search.trials=null", "search.hours=0.0005")  # 1.8 s
    Path("options/launcher/fake.yaml").write_text(fake)
    assert main(given) == 0
    done = len(study().trials)
    assert 1 <= done <= 8
    assert study().user_attrs["seconds"] >= 1.8
    assert main(given) == 0
    assert len(study().trials) == done


def test_failed_trials_are_told_end_in_status_1_and_give_way_to_others_in_the_next_command() -> None:
    given = arguments("search=random", "grpo.learning_rate=choice(1e-3,1e-4,1e-5)", "search.trials=3")
    Path("options/launcher/fake.yaml").write_text(OPTION.replace("fails_at: null", "fails_at: 1.0e-4"))
    assert main(given) == 1
    assert Counter(trial.state for trial in first_tries(study())) == {TrialState.COMPLETE: 2, TrialState.FAIL: 1}
    Path("options/launcher/fake.yaml").write_text(OPTION)
    assert main(given) == 0
    finished = [trial for trial in first_tries(study()) if trial.state == TrialState.COMPLETE]
    assert len(finished) == 3


def test_proposals_that_a_filter_drops_are_no_trials() -> None:
    search("search=random", STRATEGIES, "strategy.k=range(1,6)", "filter=strategy.k < 3", "search.trials=4")
    assert len(first_tries(study())) == 4
    assert all(trial.params.get("strategy.k", 0) < 3 for trial in first_tries(study()))
    dropped = [trial for trial in study().trials if "unfit" in trial.user_attrs]
    assert all("the filter" in trial.user_attrs["unfit"] for trial in dropped)


# What is found


def test_a_front_keeps_the_constraints_and_is_dominated_by_nothing() -> None:
    bound = 'search.constraints=["params/trainable < 3500"]'
    best = 'search.fixed=["strategy=first_k strategy.k=5 grpo.learning_rate=2e-3"]'  # without the bound
    assert search("search=pareto", STRATEGIES, "strategy.k=range(1,6)", RATE, bound, best, "search.trials=12") == 0
    found = [trial for trial in study().trials if trial.number in summary()["front"]]
    assert found
    for trial in found:
        assert trial.values[1] < 3500
        rivals = [other for other in first_tries(study()) if other.values[1] < 3500]
        assert not any(
            other.values[0] >= trial.values[0] and other.values[1] <= trial.values[1] and other.values != trial.values
            for other in rivals
        )
    assert study().trials[0].values == max(trial.values for trial in study().trials)
    assert set(summary()["objectives"]) == {"accuracy", "params/trainable"}


KINDS = ("random", "tpe", "pareto", "nsga2", "nsga3", "hyperband")


@pytest.mark.parametrize("kind", slow_unless(("tpe", "hyperband"), KINDS))
def test_every_kind_of_search_proposes_over_a_conditional_space(kind: str) -> None:
    overrides = (STRATEGIES, "strategy.k=range(1,6)", "lora.rank=tag(log,int(interval(1,64)))", RATE)
    assert search(f"search={kind}", *overrides, "search.trials=14", "search.parallel=2") == 0
    assert len(first_tries(study())) == 14
    for trial in study().trials:
        assert ("strategy.k" in trial.params) != (trial.params["strategy"] == "lora")
        assert ("lora.rank" in trial.params) == (trial.params["strategy"] == "lora")


@pytest.mark.slow
def test_tpe_finds_better_learning_rates_than_chance() -> None:
    space = ("strategy=lora", "grpo.learning_rate=tag(log,interval(1e-8,1e0))", "search.trials=30")
    means = {}
    for kind in ("tpe", "random"):
        search(f"search={kind}", *space, name=kind)
        means[kind] = sum(trial.value or 0 for trial in study(kind).trials[15:]) / 15
    assert means["tpe"] > means["random"] + 0.2


def test_a_search_with_one_trial_at_a_time_proposes_the_same_again_wherever_it_was_cut() -> None:
    space = ("search=tpe", STRATEGIES, RATE)
    search(*space, "search.trials=14", name="whole")
    search(*space, "search.trials=5", name="cut")
    search(*space, "search.trials=14", name="cut")
    search(*space, "search.trials=14", "search.seed=1", name="other")
    whole, cut, other = ([trial.params for trial in study(name).trials] for name in ("whole", "cut", "other"))
    assert whole == cut
    assert whole != other
    assert len({json.dumps(params) for params in whole}) == len(whole) == 14


def test_hopeless_runs_are_pruned_and_can_go_on_later() -> None:
    pruner = "search.pruner={_target_:optuna.pruners.MedianPruner,n_startup_trials:3,n_warmup_steps:0}"
    space = ("search=random", "strategy=lora", "grpo.learning_rate=tag(log,interval(1e-8,1e0))", "grpo.max_steps=20")
    assert search(*space, pruner, "search.report_steps=2", "search.trials=12") == 0
    states = Counter(trial.state for trial in study().trials)
    assert states[TrialState.PRUNED] >= 2
    assert states[TrialState.PRUNED] + states[TrialState.COMPLETE] == 12
    best = max(trial.value for trial in study().trials if trial.value is not None and trial.state == TrialState.COMPLETE)
    for trial in study().trials:
        record = RunDirectory(Path("outputs/runs") / trial.user_attrs["config_hash"])
        assert (record.result() is None) == (trial.state == TrialState.PRUNED)
        if trial.state == TrialState.PRUNED:
            assert record.state() == "waiting"
            assert max(trial.intermediate_values) < 20
            assert max(trial.intermediate_values.values()) < best
    assert len(launched()) == 12
    assert search(*space, pruner, "search.report_steps=2", "search.trials=12") == 0
    assert len(launched()) == 12, "a pruned trial is told, and not taken up again"


# Kills and rivals


def kill_now_and_then(given: list[str], kills: int, seconds: float) -> None:
    """Start the command and kill it, again and again; then let it end."""
    command = [sys.executable, "-m", "efficient_rl.sweep", *given]
    for number in range(kills):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(launched()) if Path("launches.jsonl").exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if Path("launches.jsonl").exists() and len(launched()) > before:
                break
            time.sleep(0.05)
        time.sleep(seconds * number)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it had ended before the kill"
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_after_kills_no_trial_is_lost_or_doubled() -> None:
    given = arguments("search=random", STRATEGIES, RATE, "search.trials=12", "search.parallel=2", "grpo.max_steps=6")
    Path("options/launcher/fake.yaml").write_text(OPTION.replace("poll_seconds: 0.0", "poll_seconds: 0.05"))
    kill_now_and_then(given, kills=3, seconds=0.31)
    assert [trial.state for trial in study().trials] == [TrialState.COMPLETE] * 12
    hashes = [trial.user_attrs["config_hash"] for trial in study().trials]
    assert len(set(hashes)) == 12
    assert sorted(path.name for path in Path("outputs/runs").iterdir()) == sorted(hashes)
    assert len({entry["pid"] for entry in launched()}) >= 3, "else nothing was killed"
    again = Counter(entry["run"] for entry in launched())
    assert 12 < sum(again.values()) <= 12 + 3 * 2, "what was in flight at a kill is launched again, nothing else"


def test_a_trial_that_was_asked_for_and_not_yet_launched_goes_on_with_what_it_had() -> None:
    given = ("search=random", STRATEGIES, RATE)
    search(*given, "search.trials=2")
    half = study().ask()  # as a controller that was killed here
    half.suggest_categorical("strategy", ["first_k", "last_k", "lora"])
    assert search(*given, "search.trials=4") == 0
    trials = study().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert trials[2].params["strategy"] == half.params["strategy"]


def test_half_a_line_in_the_journal_does_not_end_the_study() -> None:
    search("search=random", RATE, "search.trials=2")
    journal = Path("outputs/sweeps/s/study.journal")
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    assert search("search=random", RATE, "search.trials=3") == 0
    assert len(study().trials) == 3


def test_two_controllers_do_not_work_on_one_study(capsys: pytest.CaptureFixture[str]) -> None:
    search("search=random", RATE, "search.trials=1")
    with FileLock("outputs/sweeps/s/search.lock"):
        assert search("search=random", RATE, "search.trials=2") == 2
    assert "another process does the search s" in capsys.readouterr().err
    assert len(study().trials) == 1


@pytest.mark.parametrize(
    "other", [("search=random", RATE, "grpo.max_steps=4"), ("search=pareto", RATE), ("search=random", STRATEGIES)]
)
def test_a_study_is_not_asked_another_question(other: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    search("search=random", RATE, "search.trials=1")
    assert search(*other, "search.trials=2") == 2
    assert "give this one name=..." in " ".join(capsys.readouterr().err.split())
    assert len(study().trials) == 1


def test_a_database_holds_the_study_where_one_is_named() -> None:
    url = f"sqlite:///{Path('studies.db').resolve()}"
    assert search("search=random", RATE, "search.trials=2", f"search.storage={url}") == 0
    assert len(optuna.load_study(study_name="s", storage=url).trials) == 2
    assert not Path("outputs/sweeps/s/study.journal").exists()


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@127.0.0.1:1/none", "bogus://me:secret@x/y", "sqlite:////no/such/x.db"]
)
def test_a_database_that_cannot_be_opened_is_refused_without_its_password(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("search=random", RATE, "search.trials=1", f"search.storage={url}") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "search.storage cannot be opened: " in said
    assert "secret" not in said
    assert not Path("launches.jsonl").exists()


def test_an_output_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert search("search=random", RATE, "search.trials=1", "output=file") == 2
    assert "choose an output you may write" in " ".join(capsys.readouterr().err.split())


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_objectives_that_differ_by_rounding_only_have_no_importances() -> None:
    told = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    told.set_metric_names(["accuracy"])
    for value in (0.5, 0.5, 0.5, 0.5 + 1e-15):
        trial = told.ask()
        trial.suggest_float("x", 0.0, 1.0)
        told.tell(trial, value)
    assert importances(told) == {}


# The command


def test_a_dry_run_shows_the_space_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert search("search=pareto", STRATEGIES, RATE, 'search.constraints=["tokens < 1e6"]', "dry_run=true") == 0
    shown = capsys.readouterr().out
    for text in (
        "first_k, last_k, lora",
        "1e-05 to 0.01, logarithmic",
        "maximize accuracy",
        "minimize params",
        "tokens < 1e6",
    ):
        assert text in shown
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("search", "loaded"), [("none", "False False"), ("pareto", "True False")])
def test_optuna_is_loaded_for_searches_only_and_torch_for_no_plan(search: str, loaded: str) -> None:
    script = (
        "import sys\nfrom efficient_rl.sweep.__main__ import main\n"
        f"main(['-m', 'search={search}', 'strategy=full,lora', 'dry_run=true'])\n"
        "print('optuna' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1] == loaded, done.stderr


def test_the_number_of_trials_does_not_rename_a_search() -> None:
    search("search=random", RATE, "search.trials=1", "name=null")
    search("search=random", RATE, "search.trials=2", "name=null")
    (folder,) = Path("outputs/sweeps").iterdir()
    assert len(study(folder.name).trials) == 2


def test_the_size_of_a_space_counts_runs_not_combinations() -> None:
    arguments = [STRATEGIES, "strategy.k=choice(1,2)", "lora.rank=choice(1,4,8)"]
    assert space_of(arguments).size() == 2 + 2 + 3
    assert space_of(arguments, ["strategy.k < 2"]).size() == 1 + 1 + 3
    assert space_of([*arguments, RATE]).size() is None


@pytest.mark.parametrize(("given", "split"), [((), "validation"), (("eval.split=test",), "test")])
def test_what_a_search_chooses_by_is_not_the_test_unless_that_is_asked(given: tuple[str, ...], split: str) -> None:
    search("search=random", RATE, "search.trials=2", *given)
    manifest = json.loads(Path("outputs/sweeps/s/sweep.json").read_text())
    assert {run["params"]["eval.split"] for run in manifest["runs"]} == {split}


def test_the_page_names_every_kind_of_search_and_every_setting_it_names_exists() -> None:
    page = (ROOT / "docs" / "search.md").read_text()
    assert set(group_options()["search"]) - {"none"} <= set(re.findall(r"`(\w+)`", page))
    for kind, keys in {"pareto": re.findall(r"search\.(\w+)[\w.]*=", page), "per_arm": []}.items():
        settings = expand([f"search={kind}"])[0].config["search"]
        assert set(keys) <= set(settings), kind
    assert {"trials_per_arm", "decades", "test_seeds"} <= set(expand(["search=per_arm"])[0].config["search"])
