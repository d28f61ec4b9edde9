"""Planning is set arithmetic: every requested run is in one place, and doing it twice changes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.plan import make_plan

RUNS = [parse_run(point) for point in expand(["strategy=full,first_k,last_k", "seed=range(0,4)"])]
STATES = [RunState.FINISHED, RunState.RUNNING, RunState.FAILED, RunState.WAITING]


@given(
    st.lists(st.sampled_from(RUNS)), st.dictionaries(st.sampled_from([r.config_hash for r in RUNS]), st.sampled_from(STATES))
)
def test_every_distinct_run_is_planned_exactly_once(requested: list, states: dict[str, RunState]) -> None:
    plan = make_plan(requested, states)
    planned = [run.config_hash for run in plan.runs]
    assert sorted(planned) == sorted({run.config_hash for run in requested})
    assert plan.duplicates == len(requested) - len(planned)
    for run in plan.pending:
        assert states.get(run.config_hash, "waiting") in ("waiting", "failed")
    for run in plan.finished:
        assert states[run.config_hash] == "finished"
    for run in plan.active:
        assert states[run.config_hash] == "running"


def test_a_finished_sweep_leaves_nothing_to_do_unless_forced() -> None:
    states: dict[str, RunState] = {run.config_hash: RunState.FINISHED for run in RUNS}
    assert make_plan(RUNS, states).pending == ()
    assert len(make_plan(RUNS, states, force=True).pending) == len(RUNS)
    assert make_plan(RUNS, states, force=True).finished == ()
