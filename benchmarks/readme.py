"""Fills the tables of README and docs from the benchmarks' results: `python -m benchmarks.readme`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

AGAINST_HYDRA = ("ours --help / hydra --help", "ours dry_run / hydra -m")
BOUND = re.compile(" at least | at most | above ")
ROOT = Path(__file__).resolve().parents[1]
NAMES = ("models", "strategies", "curricula", "benchmarks", "cluster", "analysis", "search")
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES))


def filled(text: str, results: Path) -> str:
    """A page's text with the tables that the result files give."""
    tables = {
        "learning": _learning,
        "benchmarks": _benchmarks,
        "costs": _costs,
        "promises": _promises,
        "real_model": _real_model,
        "curricula": _curricula,
        "cluster": _cluster,
        "chaos": _chaos,
        "coverage": _coverage,
        "reporting": _reporting,
        "claims": _claims,
        "claims_first": _claims_first,
        "searching": _searching,
    }
    for name, table in ((name, make(results)) for name, make in tables.items() if f"<!-- table:{name} -->" in text):
        text = re.sub(
            rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)",
            lambda match, t=table: match[1] + t + match[2],
            text,
            flags=re.DOTALL,
        )
    return text


def _learning(results: Path) -> str:
    measured = _read(results, "learning")
    names = (
        "strategy",
        "trained parameters",
        "sampled accuracy [95% interval]",
        "greedy accuracy",
        "training",
        "peak memory",
    )
    rows = [f"| {' | '.join(names)} |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    before = measured["strategies"][0]["accuracy_before"]
    rows.append(f"| no training | 0 | {before:.1%} | {_greedy(measured['runs'], 'before'):.1%} | | |")
    for row in measured["strategies"]:
        low, high = row["accuracy_interval"]
        greedy = _greedy([run for run in measured["runs"] if run["strategy"] == row["label"]], "after")
        rows.append(
            f"| {row['label']} | {row['trainable_params']:,} | {row['accuracy']:.1%} [{low:.1%}, {high:.1%}] "
            f"| {greedy:.1%} | {row['train_seconds']:.0f} s | {row['peak_memory_bytes'] / 2**20:.0f} MiB |"
        )
    return "\n".join(rows) + "\n"


def _greedy(runs: Sequence[Any], when: str) -> float:
    """Mean greedy accuracy of these runs, before or after training."""
    return fmean(run[when]["greedy_accuracy"] for run in runs)


def _coverage(results: Path) -> str:
    measured = _read(results, "reporting")["coverage"]
    seeds = sorted({int(name.split()[-2]) for name in measured})
    rows = [f"| interval of | {' | '.join(f'{count} seeds' for count in seeds)} |", f"| --- |{' ---: |' * len(seeds)}"]
    for what in dict.fromkeys(name.rpartition(", ")[0] for name in measured):
        shares = [f"{measured[f'{what}, {count} seeds']:.1%}" for count in seeds]
        rows.append(f"| {what} | {' | '.join(shares)} |")
    return "\n".join(rows) + "\n"


def _reporting(results: Path) -> str:
    found = _read(results, "reporting")
    seconds, cpu, memory, page = (
        found[name] for name in ("report_seconds", "report_cpu_seconds", "report_peak_mib", "page_mib")
    )
    return (
        f"The report on {found['runs']:,} runs with {found['points']:,} points in SQLite took {seconds:.0f} s ({cpu:.0f} s "
        f"of one core) and {memory:.0f} MiB; its page is {page:.1f} MiB. Reading was {found['client_over_ours']:.0f} times "
        "as fast as asking MLflow's client for every history (on the same machine at the same time).\n"
    )


def _claims(results: Path) -> str:
    return _claims_table(_read(results, "claims")["claims"])


def _claims_first(results: Path) -> str:
    """The first claim of each verdict."""
    claims = _read(results, "claims")["claims"]
    first = {claim["verdict"]: claim for claim in reversed(claims)}
    return _claims_table([claim for claim in claims if claim is first[claim["verdict"]]])


def _claims_table(claims: Sequence[Any]) -> str:
    rows = [
        "| claim, tested with 5 seeds on the embedded model | measured [95% interval] | verdict |",
        "| --- | --- | --- |",
    ]
    for claim in claims:
        source = claim["source"].rpartition(", ")[2]
        measured = "; ".join(f"{BOUND.split(check['criterion'])[0]} {check['measured']}" for check in claim["checks"])
        rows.append(f"| {claim['question']} ({source}) | {measured} | {claim['verdict']} |")
    return "\n".join(rows) + "\n"


def _real_model(results: Path) -> str:
    measured = _read(results, "real_model")
    names = ("strategy, learning rate", "before [95%]", "after [95%]", "greedy, before and after", "seconds a step")
    rows = [f"| {' | '.join(names)} |", "| --- | ---: | ---: | ---: | ---: |"]
    for run in sorted(measured["runs"], key=lambda run: -run["after"]["accuracy"]):
        before, after = run["before"], run["after"]
        shares = [f"{part['accuracy']:.1%} [{part['low']:.1%}, {part['high']:.1%}]" for part in (before, after)]
        greedy = f"{before['greedy_accuracy']:.1%}, {after['greedy_accuracy']:.1%}"
        cells = (f"{run['strategy']}, {run['learning_rate']:.0e}", *shares, greedy, f"{run['seconds_a_step']:.0f}")
        rows.append(f"| {' | '.join(cells)} |")
    problems, samples = (measured["runs"][0]["after"][name] for name in ("problems", "samples"))
    return "\n".join(rows) + f"\n\nOne seed each; intervals over {problems} held-out sums, {samples} samples of each.\n"


def _searching(results: Path) -> str:
    measured = _read(results, "searching")["replay"]
    head = f"hypervolume with {measured['trials']} of {measured['runs_of_the_grid']} runs, of the grid's [95%]"
    rows = [
        f"| search | {head} | more than random, points [95%] | random runs for the same |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind, share in measured["hypervolume_share"].items():
        reached = f"{share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
        more = measured["more_than_random"].get(kind)
        points = "" if more is None else f"{100 * more['mean']:+.1f} [{100 * more['low']:+.1f}, {100 * more['high']:+.1f}]"
        rows.append(f"| {kind} | {reached} | {points} | {measured['random_runs_for_the_same'].get(kind, '')} |")
    return "\n".join(rows) + f"\n\n{measured['seeds']} seeds of each.\n"


def _curricula(results: Path) -> str:
    measured = _read(results, "which_curriculum")
    by_name: dict[str, list[Any]] = {}
    for run in measured["runs"]:
        by_name.setdefault(run["curriculum"], []).append(run)
    means = {name: fmean(run["after"]["accuracy"] for run in runs) for name, runs in by_name.items()}
    names = ("curriculum", "accuracy", "against uniform, points [95%]", "p (Holm)", "tokens", "seeds")
    rows = [f"| {' | '.join(names)} |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name in sorted(means, key=lambda name: -means[name]):
        other, p = "", ""
        if name in measured["against_uniform"]:
            found = measured["against_uniform"][name]
            other = f"{100 * found['mean']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
            p = f"{found['holm_p']:.2f}"
        tokens = fmean(run["tokens"] for run in by_name[name])
        rows.append(f"| {name} | {means[name]:.1%} | {other} | {p} | {tokens:,.0f} | {len(by_name[name])} |")
    return "\n".join(rows) + "\n"


def _benchmarks(results: Path) -> str:
    rows = (*_training(results), *_mathematics(results), *_demo(results), *_launching(results), *_planning(results))
    header = f"| measured on {_read(results, 'demo')['machine']['cores']} cores, medians | |\n| --- | --- |\n"
    return header + "".join(f"| {what} | {value} |\n" for what, value in rows)


def _cluster(results: Path) -> str:
    measured = _read(results, "cluster")
    chaos, submitted, waits = measured["chaos"], measured["submission"], measured["latency"]["medians"]
    packing = measured["packing"]
    ratios = {name: way["cpu_seconds"] for name, way in packing["ratio_to_8_runs_a_job"].items()}
    walls = {name: way["wall_seconds"] for name, way in packing["ratio_to_8_runs_a_job"].items()}
    calls = submitted["calls_while_watching"]
    gap = submitted["watched_seconds"] / max(1, calls["sacct"])
    rows = [
        (f"{chaos['runs']} short runs under {sum(chaos['disturbances'].values())} kills: lost, done twice",
         f"{chaos['lost']}, {chaos['finished_twice']}"),
        ("of them compared with undisturbed runs: equal weights",
         f"{chaos['equal_to_undisturbed']} of {chaos['compared_with_undisturbed']}"),
        (f"submitting {submitted['runs']:,} runs: the whole command", f"{submitted['command_seconds']:.1f} s, "
         f"{submitted['calls_to_submit']['sbatch']} sbatch, {sum(submitted['calls_to_submit'].values())} calls in all"),
        (f"watching {submitted['runs']:,} waiting jobs", f"one sacct every {gap:.0f} s, {calls['squeue']} squeue a minute"),
        ("job start to first step (torch imported, accuracy measured before)",
         f"{waits['job_start_to_first_step_seconds']:.0f} s"),
        ("from a preemption, a requeue, a node's crash to the next new step",
         ", ".join(f"{waits[f'{kind}_seconds']:.0f} s" for kind in ("preemption (USR2)", "requeue by hand", "node crash"))),
        *((f"{packing['runs']} runs, {name}, against 8 runs a job: wall, CPU",
           f"{walls[name]:.1f}, {ratios[name]:.1f} times")
          for name in ratios),
    ]  # fmt: skip
    return "| what | measured |\n| --- | ---: |\n" + "".join(f"| {what} | {value} |\n" for what, value in rows)


def _chaos(results: Path) -> str:
    done = sorted(_read(results, "cluster")["chaos"]["disturbances"].items(), key=lambda item: -item[1])
    return "| what was done to it | times |\n| --- | ---: |\n" + "".join(f"| {what} | {count} |\n" for what, count in done)


def _costs(results: Path) -> str:
    measured = _read(results, "training")["strategies"]
    full = measured["full"]
    header = "| strategy | trained | gradients | optimizer | saved activations | peak, of full | step, of full |"
    rows = [header, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in sorted(measured.items(), key=lambda item: item[1]["peak_bytes"]):
        sizes = " | ".join(f"{row['bytes'][part] / 2**20:.1f}" for part in ("gradients", "optimizer_state", "activations"))
        peak, step = row["peak_bytes"] / full["peak_bytes"], row["step_seconds"] / full["step_seconds"]
        rows.append(f"| {name} | {row['trained']:,} | {sizes} | {peak:.2f} | {step:.2f} |")
    return "\n".join(rows) + "\n"


def _promises(results: Path) -> str:
    rows = ["| promised | peak memory here, of full | time here, of full |", "| --- | ---: | ---: |"]
    for row in _read(results, "training")["promises"].values():
        rows.append(f"| {row['promised']} | {row['peak_memory_of_full']:.2f} | {row['time_of_full']:.2f} |")
    return "\n".join(rows) + "\n"


def _demo(results: Path) -> Sequence[tuple[str, str]]:
    measured = _read(results, "demo")
    return [
        ("`make demo` once installed, to the finished report", _seconds(measured["demo_seconds"])),
        ("tracking, CPU share of a nano run's time", f"{measured['tracking_share']['median']:.1%}"),
    ]


def _training(results: Path) -> Sequence[tuple[str, str]]:
    """Ratios to stock TRL, each from one process."""
    measured = _read(results, "training")
    chosen = [row for row in measured["figures"] if row["against"].startswith("TRL")]
    chosen += _read(results, "prefixes")["figures"] + _read(results, "sampling")["figures"]
    shares = measured["bookkeeping_share"]
    return [
        *((f"{row['what']}, of {row['against']}", f"{row['ratio']:.2f}") for row in chosen),
        ("bookkeeping of dynamic strategies", f"{min(shares.values()):.1%} to {max(shares.values()):.1%} of a nano step"),
    ]


def _mathematics(results: Path) -> Sequence[tuple[str, str]]:
    judged, made = _read(results, "verifying"), _read(results, "generators")["problems_a_second"]
    stable = _read(results, "stability")
    tries = f"in {stable['repetitions']} tries beside {stable['busy_processes']} busy processes"
    twice = f"{len(stable['two_verdicts'])} of {stable['pairs']}; slowest {stable['slowest_cpu_seconds']:.1f} s of CPU"
    verdicts = [judged[way]["a_core_second"]["median"] for way in ("boxed_numbers", "gsm8k_through_math_verify")]
    countdown = [made[f"countdown, {numbers} numbers"]["median"] for numbers in (3, 4, 6)]
    steps = _read(results, "curricula")["pools"]["five levels"].values()
    return [
        ("verdicts a core second, boxed numbers and through math-verify", " and ".join(f"{rate:,.0f}" for rate in verdicts)),
        (f"hard pairs with two verdicts, {tries}", twice),
        ("countdown problems a second, 3, 4 and 6 numbers", ", ".join(f"{rate:,.0f}" for rate in countdown)),
        (
            "a curriculum over 100,000 problems, of a nano step",
            f"{max(each['share_of_a_step'] for each in steps):.1%} at most",
        ),
    ]


def _launching(results: Path) -> Sequence[tuple[str, str]]:
    measured = _read(results, "launching")
    ours = measured["our_server"]
    others = {"subprocess": "subprocesses", "submitit_local": "hydra-submitit-launcher", "joblib": "hydra-joblib-launcher"}
    whole = ", ".join(f"{name} {_whole(measured, variant)}" for variant, name in {"ours": "ours", **others}.items())
    return [
        ("starting one more run in a sweep (warm), wall", _seconds(ours["one_more_wall_seconds"])),
        (f"{2 * measured['jobs']} trivial jobs that import trl and mlflow, whole sweep", whole),
    ]


def _whole(measured: Any, variant: str) -> str:
    return f"{measured['variants'][variant]['wall_seconds'][str(2 * measured['jobs'])]['median']:.0f} s"


def _planning(results: Path) -> Sequence[tuple[str, str]]:
    measured = _read(results, "planning")
    ratios = measured["ratios_of_medians"]
    return [
        ("planning 1,000 runs, whole process", _seconds(measured["planning"]["1000"]["wall_seconds"])),
        ("the same command over a finished sweep", _seconds(measured["finished_sweep"]["again"]["wall_seconds"])),
        (
            "`--help` and a dry run of 3 runs, CPU, against `--help` and `-m` of a bare Hydra application",
            " and ".join(f"{ratios[pair]['cpu_seconds']:.2f}" for pair in AGAINST_HYDRA) + " times",
        ),
    ]


def _seconds(spread: dict[str, float]) -> str:
    digits = 0 if spread["median"] >= 10 else 2
    return f"{spread['median']:.{digits}f} s ({spread['min']:.{digits}f} to {spread['max']:.{digits}f})"


def _read(results: Path, name: str) -> Any:
    return json.loads((results / f"{name}.json").read_text())


def main() -> None:
    """Rewrite the pages in place."""
    for page in PAGES:
        page.write_text(filled(page.read_text(), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()
