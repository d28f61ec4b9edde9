"""An arm of a comparison: its learning rates, the cost of tuning, and the best rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from efficient_rl.cli import print_table
from efficient_rl.config.run_config import RunConfig
from efficient_rl.search.space import TrialLike
from efficient_rl.search.summary import spent
from efficient_rl.search.trials import HASH

ARM = "arm"
DIGITS = 4  # of a learning rate of the grid


@dataclass(frozen=True)
class Arm:
    """One arm: its validation run at the centre, and its learning rates in rising order."""

    name: str
    run: RunConfig
    rates: tuple[float, ...]

    @property
    def key(self) -> str:
        """What the study calls its learning rate: each arm's is modelled on its own."""
        return f"learning_rate of {self.name}"

    def propose(self, trial: TrialLike) -> RunConfig:
        """The run with the learning rate that the trial proposes."""
        rate = trial.suggest_float(self.key, self.rates[0], self.rates[-1], log=True)
        return replace(self.run, grpo=replace(self.run.grpo, learning_rate=rate))


def arm_row(arm: Arm, trials: Sequence[FrozenTrial], objectives: Mapping[str, str], runs: Path) -> dict[str, Any]:
    """What was spent on an arm, and its best: at the edge, a better one may lie beyond."""
    sign = 1 if next(iter(objectives.values())) == "maximize" else -1
    tried, order, folders = [], [], set()
    for trial in trials:
        folders.add(runs / trial.user_attrs[HASH])
        if trial.state == TrialState.COMPLETE:
            rate, value = trial.params[arm.key], trial.value or 0.0
            tried.append({"learning_rate": rate, "value": trial.value, "hash": trial.user_attrs[HASH]})
            order.append((sign * value, -trial.number, rate))
    best = None
    if tried:
        rates = [rate for *_, rate in order]
        best = tried[order.index(max(order))]
        at_edge = len(arm.rates) > 1 and best["learning_rate"] in (min(rates), max(rates))
        best = {**best, "at_edge": at_edge}
    return {
        "arm": arm.name,
        "centre": arm.run.grpo.learning_rate,
        "low": arm.rates[0],
        "high": arm.rates[-1],
        "trials": len(tried),
        "failed": len(trials) - len(tried),
        "spent": spent(sorted(folders)),
        "tried": tried,
        "best": best,
    }


def show_arms(rows: Sequence[dict[str, Any]], objectives: Mapping[str, str], console: Console) -> None:
    """The table of all arms that have a best; where that lies at the edge, it says so."""
    columns = ("arm", "learning rate", "centre", next(iter(objectives)), "trials", "seconds", "tokens", "")
    edges, shown = [], []
    for row in rows:
        best = row["best"]
        rate = best["learning_rate"]
        cells = (f"{rate:.3g}", f"x {rate / row['centre']:.2g}", f"{best['value']:.4g}")
        cost = (f"{row['trials']}", f"{row['spent']['train_seconds']:.0f}", f"{row['spent']['tokens']:,.0f}")
        shown.append((row["arm"], *cells, *cost, "edge" if best["at_edge"] else ""))
        if best["at_edge"]:
            edges.append(row["arm"])
    drop = ("tokens", "seconds", "centre", "trials")
    print_table(console, "tuned on the validation split", columns, shown, drop, "arm", columns[1:-1])
    if edges:
        said = f"the best of {', '.join(edges)} lies at the edge of what was tried: a wider search.decades may find better"
        console.print(said, soft_wrap=True, highlight=False, markup=False)
