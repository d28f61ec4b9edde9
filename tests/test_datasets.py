"""Data sets become problems by their columns; what does not parse is left out, counted, and never guessed."""

import gzip
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.config.compose import expand
from efficient_rl.config.options import group_options, load_option
from efficient_rl.config.run_config import parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.rewards.extract import last_box
from efficient_rl.tasks.datasets import Table
from efficient_rl.tasks.parsing import Difficulty, plain_math, plain_number
from efficient_rl.tasks.problem import Problem, Task, split_of
from tests.conftest import ROOT, environment

DATA = Path(os.environ.get("EFFICIENT_RL_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set EFFICIENT_RL_DATA to their folder")
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's cache mistakes folders of the same name for one another."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def task_of(*overrides: str) -> Task:
    task: Task = parse_run(expand(list(overrides))[0]).task.build()
    return task


def lines(path: Path, rows: Rows) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as stream:
            stream.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def sums(count: int) -> Rows:
    return [{"question": f"How much is {i} and one?", "answer": str(i + 1)} for i in range(count)]


def hub(folder: Path, configs: dict[str, dict[str, Rows]]) -> str:
    """A folder laid out as a data set on the hub: Parquet files and the configurations in the header of README.md."""
    listed = []
    for config, splits in configs.items():
        for split, rows in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        listed.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text("---\n" + yaml.safe_dump({"configs": listed}) + "---\n")
    return str(folder)


def columns(names: str, *rows: Sequence[Any]) -> Rows:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


GSM8K = "question answer"
SVAMP = "ID Body Question Equation Answer Type question_concat"
MATH = "problem level type solution"
BIG_MATH = "problem answer source domain llama8b_solve_rate"
OPENTHOUGHTS = "source problem solution messages system conversations generated_token_count correct"
AQUA = "question options rationale correct"
OPTIONS = ["A)32", "B)6,000", "C)x) y", "D)1/2", "E)none"]
PUBLISHED: dict[str, tuple[dict[str, dict[str, Rows]], list[tuple[str, float, str]], int]] = {
    # option: the data set as published; answer, difficulty and source of its training problems; how many are held out
    "gsm8k": (
        {
            "main": {
                "train": columns(
                    GSM8K,
                    ("Two and two?", "It is 2+2 = <<2+2=4>>4.\n#### 4"),
                    ("Much money?", "<<2*700=1400>>1,400 and <<1400+5=1405>>\n#### 1,405"),
                    ("No mark?", "4"),
                ),
                "test": columns(GSM8K, ("Three?", "#### -3")),
            }
        },
        [("4", 1.0, "gsm8k"), ("1405", 2.0, "gsm8k")],
        1,
    ),
    "svamp": (
        {
            "default": {
                "train": columns(SVAMP, ("1", "B", "Q?", "( 76.0 - 25.0 )", "51.0", "Subtraction", "B Q?")),
                "test": columns(SVAMP, ("2", "C", "Q?", "( ( 3.0 + 1.0 ) * 2.0 )", "8", "Addition", "C Q?")),
            }
        },
        [("51", 1.0, "svamp")],
        1,
    ),
    "deepscaler": (
        {
            "default": {
                "train": columns("problem answer solution", *((f"P{i}", rf"\frac{{{i}}}{{2}}", "") for i in range(40)))
            }
        },
        [(rf"\frac{{{i}}}{{2}}", 1.0, "deepscaler") for i in range(40)],
        -1,
    ),
    "deepscaler_difficulty": (
        {
            "Difficulty Score": {
                "train": columns("problem ground_truth solved_percentage", *((f"P{i}", f"{i}", 100 - i) for i in range(40)))
            }
        },
        [(str(i), float(i), "deepscaler") for i in range(40)],
        -1,
    ),
    "big_math": (
        {
            "default": {
                "train": columns(
                    BIG_MATH,
                    *((f"P{i}", f"${i}$", "cn_k12", ["Algebra"], 0.75) for i in range(40)),
                    ("no rate", "1", "orca_math", [], None),
                )
            }
        },
        [(str(i), 0.25, "cn_k12") for i in range(40)],
        -1,
    ),
    "openthoughts_math": (
        {
            "default": {
                "train": columns(
                    OPENTHOUGHTS,
                    *(("aops", f"P{i}", rf"So \boxed{{{i}^{{2}}}}.", [], "", [], 2500, True) for i in range(40)),
                    ("aops", "wrong", r"\boxed{1}", [], "", [], 100, False),
                    ("aops", "unboxed", "It is 1.", [], "", [], 100, True),
                )
            }
        },
        [(f"{i}^{{2}}", 2.5, "aops") for i in range(40)],
        -1,
    ),
    "aqua": (
        {
            "raw": {
                "train": columns(
                    AQUA, ("Which?", OPTIONS, "Because.", "D"), ("None?", OPTIONS, "", "F"), ("Case?", OPTIONS, "", "de")
                ),
                "test": columns(AQUA, ("Other?", OPTIONS, "So.", "A")),
            }
        },
        [("D", 1.0, "aqua")],
        1,
    ),
}
MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


@pytest.mark.parametrize("option", sorted(PUBLISHED))
def test_a_shipped_option_reads_the_published_schema(tmp_path: Path, option: str) -> None:
    configs, expected, held_out = PUBLISHED[option]
    task = task_of(f"task={option}", f"task.dataset={hub(tmp_path / 'hub', configs)}")
    train, kept = task.problems("train", 0, 0), task.problems("held_out", 0, 0)
    found = train if held_out >= 0 else [*train, *kept]
    assert Counter((p.gold["answer"], round(p.difficulty, 9), p.source) for p in found) == Counter(expected)
    assert len(kept) == held_out if held_out >= 0 else 0 < len(kept) < len(train)
    assert {p.check for p in found} == {load_option("task", option)["check"]}
    assert all(p.free_text and p.solution == p.gold["answer"] and p.symbols == p.question for p in found)


def test_math_reads_all_subjects_and_levels_and_holds_out_another_data_set(tmp_path: Path) -> None:
    subjects = {
        name: {
            "train": columns(
                MATH, (f"P of {name}", f"Level {i % 5 + 1}", name, rf"\boxed{{{i}}} is $\boxed{{\sqrt{{{i}}}}}$")
            )
        }
        for i, name in enumerate(MATH_CONFIGS)
    }
    subjects["algebra"]["train"] += columns(
        MATH, ("odd", "Level ?", "Algebra", r"\boxed{1}"), ("held", "Level 1", "A", r"\boxed1")
    )
    names = "problem solution answer subject level unique_id"
    test = {"default": {"test": columns(names, ("held", r"So $\boxed{1}$.", "1", "Algebra", 3, "test/algebra/1.json"))}}
    kept = f"task.held_out={{dataset: {hub(tmp_path / 'math_500', test)}, split: test}}"
    task = task_of("task=math", f"task.dataset={hub(tmp_path / 'math', subjects)}", kept)
    train = task.problems("train", 0, 0)
    assert Counter((p.gold["answer"], p.difficulty, p.source) for p in train) == Counter(
        (rf"\sqrt{{{i}}}", float(i % 5 + 1), name) for i, name in enumerate(MATH_CONFIGS)
    )
    (held_out,) = task.problems("held_out", 0, 0)
    assert (held_out.gold["answer"], held_out.difficulty, held_out.source) == ("1", 3.0, "Algebra")


def test_mgsm_reads_the_file_of_its_language_inside_the_data_set(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "datasets--juletxara--mgsm" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "mgsm_sw.tsv").write_text("Nini?\t1,000\nNgapi\tni\t-2\nhakuna\n", encoding="utf-8")
    references = snapshot.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text("a" * 40)
    script = (
        "from tests.test_datasets import task_of\n"
        "task = task_of('task=mgsm', 'task.config=sw')\n"
        "print(sorted((p.question, p.gold['answer']) for p in task.problems('held_out', 0, 0)))\n"
        "try:\n    task.problems('train', 1, 0)\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1"),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found, error = done.stdout.splitlines()
    assert found == r"[('Ngapi\tni', '-2'), ('Nini?', '1000')]", done.stderr
    assert error.startswith("1 problems asked, but there are only 0 train problems of juletxara/mgsm (sw)")


def test_every_option_with_a_data_set_is_tested_here() -> None:
    tables = {name for name in group_options()["task"] if load_option("task", name)["_target_"].endswith("datasets.Table")}
    assert tables == set(PUBLISHED) | {"math", "mgsm", "table"}


def test_without_a_network_the_error_says_how_to_give_a_local_copy(tmp_path: Path) -> None:
    script = (
        "from tests.test_datasets import task_of\n"
        "for option in ('big_math', 'mgsm', 'countdown_tinyzero'):\n"
        "    try:\n        task_of(f'task={option}').problems('train', 1, 0)\n"
        "    except ValueError as error:\n        print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    messages = done.stdout.splitlines()
    assert len(messages) == 3, done.stderr
    assert messages[0].startswith("cannot load the data set 'SynthLabsAI/Big-Math-RL-Verified' (")
    for message in messages:
        assert "task.path=<file or folder>" in message
        assert "hf auth login" in message


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.csv", "d.parquet"])
def test_every_kind_of_local_file_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    rows, path = sums(30), tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".csv"):
        path.write_text("question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in rows))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        lines(path, rows)
    problems = Table(path=str(path), check="number", held_out="all").problems("held_out", 0, 0)
    assert {(p.question, p.gold["answer"]) for p in problems} == {(row["question"], row["answer"]) for row in rows}
    assert task_of("task=table", f"task.path={path}", "task.check=number").problems("train", 5, 0)


def test_a_folder_is_read_by_split(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 4)):
        pq.write_table(
            pa.Table.from_pylist([{**row, "question": split + row["question"]} for row in sums(count)]),
            tmp_path / f"{split}.parquet",
        )
    (tmp_path / "more").mkdir()
    lines(tmp_path / "more" / "train-2.jsonl.gz", [{"question": "One more?", "answer": "1"}])
    task = Table(path=str(tmp_path), check="number", held_out="split:test")
    assert len(task.problems("train", 0, 0)) == 13
    assert all(p.question.startswith("test") for p in task.problems("held_out", 4, 0))
    with pytest.raises(ValueError, match=r"has no file for the split 'validation'; name them validation\*\.parquet"):
        Table(path=str(tmp_path), held_out="split:validation").problems("train", 1, 0)


@given(st.integers(0, 10**9), st.integers(1, 40))
def test_the_same_seed_gives_the_same_problems_and_more_only_adds(seed: int, count: int) -> None:
    path = Path("d.jsonl")
    if not path.exists():
        lines(path, sums(80))
    task = Table(path=str(path), check="number")
    problems = task.problems("train", count, seed)
    assert task.problems("train", 60, seed)[:count] == problems
    assert len({p.key for p in problems}) == count
    assert {split_of(p.key) for p in problems} == {"train"}


def test_more_problems_than_there_are_and_empty_sides_are_errors_with_the_numbers(tmp_path: Path) -> None:
    task = Table(path=lines(tmp_path / "d.jsonl", sums(5)), check="number", held_out="all")
    with pytest.raises(
        ValueError, match=r"6 problems asked, but there are only 5 held_out problems of .*d\.jsonl; use at most 5"
    ):
        task.problems("held_out", 6, 0)
    with pytest.raises(ValueError, match=r"only 0 train problems"):
        task.problems("train", 0, 0)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    task = Table(path=lines(tmp_path / "d.jsonl", sums(5)), check="number", held_out="all")
    assert len(task.problems("held_out", 0, 0)) == 5
    lines(tmp_path / "d.jsonl", sums(7))
    assert len(task.problems("held_out", 0, 0)) == 7


def test_rows_that_do_not_parse_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad: Rows = [
        {"question": "No answer?", "answer": None},
        {"question": "Two?", "answer": "2 or 3"},
        {"question": "Word?", "answer": "seven"},
        {"question": " ", "answer": "1"},
        {"question": None, "answer": "1"},
        {"question": "HOW much is  1 and one?", "answer": "2"},
        {"question": "True?", "answer": True},
    ]
    with caplog.at_level(logging.WARNING):
        task = Table(path=lines(tmp_path / "d.jsonl", [*sums(3), *bad]), check="number", held_out="all")
        assert len(task.problems("held_out", 0, 0)) == 3
    assert "3 problems in" in caplog.text
    assert "no answer that parses: 4 (such as None), no question: 2 (such as ' '), question seen before: 1" in caplog.text


def test_training_rows_that_are_held_out_too_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = lines(tmp_path / "test.jsonl", [{"question": "how much is 2 AND one?", "answer": "3"}])
    with caplog.at_level(logging.WARNING):
        task = Table(path=lines(tmp_path / "d.jsonl", sums(6)), check="number", held_out=f"path:{held}")
        assert "How much is 2 and one?" not in {p.question for p in task.problems("train", 0, 0)}
    assert len(task.problems("train", 5, 0)) == 5
    assert "1 rows of" in caplog.text


def test_a_list_of_wanted_values_keeps_rows_with_any_of_them(tmp_path: Path) -> None:
    rows = [{**row, "lang": ["en", "fr", "de"][i % 3]} for i, row in enumerate(sums(9))]
    path = lines(tmp_path / "d.jsonl", rows)
    assert len(Table(path=path, where={"lang": ["en", "de"]}, held_out="all").problems("held_out", 0, 0)) == 6
    assert len(Table(path=path, where={"lang": "fr"}, held_out="all").problems("held_out", 0, 0)) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": None}, r"task\.dataset and task\.path are both missing"),
        ({"check": "sum"}, r"task\.check='sum' is not known; use one of number, math, choice"),
        ({"check": "choice"}, r"choice and options need each other"),
        ({"question": None}, r"task\.question and task\.answer must name a column each"),
        ({"boxed": True, "answer_pattern": "(.)"}, r"exclude each other"),
        ({"answer_pattern": "(("}, r"task\.answer_pattern='\(\(' is no regular expression"),
        ({"answer_pattern": "#### .*"}, r"has no group; put \( \) around what is wanted"),
        ({"difficulty": {"column": "level"}}, r"task\.difficulty has no column; use columns, pattern, count"),
        ({"difficulty": {"pattern": "(.)"}}, r"neither a column nor a default"),
        ({"held_out": "tenth"}, r"task\.held_out='tenth' is not known; use hash, all, split:<name>"),
        ({"held_out": {"split": "test"}}, r"task\.held_out=\{'split': 'test'\} needs dataset or path"),
        ({"held_out": "split:test"}, r"needs a data set with splits, but task\.path=d\.jsonl is not a folder"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Table(**{"path": "d.jsonl", **options})


def test_a_missing_file_is_an_error_of_the_run_not_of_the_plan() -> None:
    task = task_of("task=table")
    with pytest.raises(ValueError, match=r"task\.path='problems\.jsonl' is neither a file nor a folder here"):
        task.problems("train", 1, 0)
    with pytest.raises(ConfigError, match=r"task\.check='sum' is not known"):
        task_of("task=table", "task.check=sum")


def test_the_data_set_is_part_of_what_a_run_is() -> None:
    hashes = {parse_run(expand(["task=gsm8k", f"task.dataset={name}"])[0]).config_hash for name in ("a/b", "a/c")}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"), ("-1,234", "-1234"), ("1,234,567.50", "1234567.5"), ("$18", "18"), ("$18$.", "18"), ("51.0", "51"),
        ("0.50", "0.5"), (" 6/4 ", "3/2"), ("4/2", "2"), ("+3", "3"), ("−7", "-7"), ("007", "7"), ("1/0", None), ("", None),
        ("1,23", None), ("7 or 8", None), ("12 dollars", None), ("50%", None), ("x", None), ("1e5", None), ("١٢", None),
        ("1" * 31, None), ("--1", None), ("nan", None), ("1,2345", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_numbers_are_read_exactly_or_not_at_all(text: str, number: str | None) -> None:
    assert plain_number(text) == number


@given(st.text(max_size=40))
def test_reading_a_number_never_raises_and_what_it_reads_reads_the_same_again(text: str) -> None:
    number = plain_number(text)
    assert number is None or plain_number(number) == number


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{5}", "5"), (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"), (r"\boxed 7", "7"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"), (r"\fbox{3}", "3"), (r"\boxed{a\\b}", r"a\\b"), (r"\boxed {x}", "x"),
        (r"\boxed{[0, \}} and {", r"[0, \}"),
        (r"\boxed{1} and \boxed{open", None), ("none", None), (r"\boxed{}", ""), (r"\boxed", None),
    ],
)  # fmt: skip
def test_the_last_box_is_read_with_its_braces(text: str, boxed: str | None) -> None:
    assert last_box(text, any_form=True, last_only=True) == boxed


def test_answers_in_mathematics_lose_their_dollar_signs_and_long_texts_are_none() -> None:
    assert plain_math(" $$\\frac12$$ ") == r"\frac12"
    assert plain_math("$") == "$"
    assert plain_math("  ") is None
    assert plain_math("x" * 1001) is None


@pytest.mark.parametrize(
    ("difficulty", "row", "expected"),
    [
        (Difficulty(("level",), pattern=r"(\d)"), {"level": "Level 4"}, 4.0),
        (Difficulty(("level",), pattern=r"(\d)"), {"level": 5}, 5.0),
        (Difficulty(("level",), pattern=r"(\d)"), {"level": "Level ?"}, None),
        (Difficulty(("level",), pattern=r"(\d)", default=3.0), {"level": "Level ?"}, 3.0),
        (Difficulty(("rate",), scale=-1, shift=1), {"rate": 0.25}, 0.75),
        (Difficulty(("rate",), scale=-1, shift=1), {"rate": None}, None),
        (Difficulty(("rate",)), {"rate": float("nan")}, None),
        (Difficulty(("rate",)), {"rate": "hard"}, None),
        (Difficulty(("text",), count="<<"), {"text": "<<1>> <<2>>"}, 2.0),
        (Difficulty(("a", "b")), {"b": 2}, 2.0),
        (Difficulty(default=1.0), {}, 1.0),
    ],
)
def test_difficulties_are_read_as_the_options_say(
    difficulty: Difficulty, row: dict[str, Any], expected: float | None
) -> None:
    assert difficulty.of(row) == expected


def local(option: str, train: str, *overrides: str) -> Task:
    return task_of(f"task={option}", f"task.path={DATA / train}", *overrides)


@needs_data
def test_all_of_gsm8k_parses_with_its_own_split() -> None:
    task = local("gsm8k", "gsm8k/train.jsonl.gz", f"task.held_out=path:{DATA / 'gsm8k' / 'test.jsonl.gz'}")
    train, held_out = task.problems("train", 0, 0), task.problems("held_out", 0, 0)
    assert (len(train), len(held_out)) == (7473, 1319)
    assert not {p.key for p in train} & {p.key for p in held_out}
    with gzip.open(DATA / "gsm8k" / "test.jsonl.gz", "rt") as stream:
        rows = {row["question"].strip(): row for row in map(json.loads, stream)}
    assert all(rows[p.question]["answer"] == p.gold["answer"] for p in held_out)
    assert sum(rows[p.question]["steps"] == p.difficulty for p in held_out) == 1319
    assert all(p.steps[-1].startswith("####") for p in held_out)


@needs_data
def test_all_of_svamp_aqua_and_mgsm_parses() -> None:
    svamp = local("svamp", "svamp/all.jsonl.gz", "task.held_out=all").problems("held_out", 0, 0)
    assert len(svamp) == 1000
    assert Counter(p.difficulty for p in svamp).most_common(1)[0][0] == 1.0
    aqua = local("aqua", "aqua/dev.jsonl.gz", f"task.held_out=path:{DATA / 'aqua' / 'test.jsonl.gz'}")
    assert [len(aqua.problems(split, 0, 0)) for split in ("train", "held_out")] == [254, 254]
    assert all("\nE) " in p.question and p.gold["answer"] in "ABCDE" for p in aqua.problems("train", 0, 0))
    for language in ("de", "zh", "bn"):
        mgsm = local("mgsm", "mgsm/test.jsonl.gz", f"task.where={{lang: {language}}}").problems("held_out", 0, 0)
        assert len(mgsm) == 250


@needs_data
def test_gold_answers_of_the_data_sets_pass_their_own_checks() -> None:
    from efficient_rl.rewards.verify import CHECKERS

    tasks = (
        local("gsm8k", "gsm8k/test.jsonl.gz", "task.held_out=all"),
        local("svamp", "svamp/all.jsonl.gz", "task.held_out=all"),
    )
    for task, count in zip(tasks, (1319, 1000), strict=True):
        problems: list[Problem] = task.problems("held_out", 0, 0)
        assert sum(bool(CHECKERS[p.check](p.solution, p.gold)) for p in problems) == count


@needs_data
def test_training_on_gsm8k_never_shares_a_passage_with_its_test_set_after_decontamination() -> None:
    from efficient_rl.tasks.contamination import decontaminated

    task = local("gsm8k", "gsm8k/train.jsonl.gz", f"task.held_out=path:{DATA / 'gsm8k' / 'test.jsonl.gz'}")
    train, held_out = task.problems("train", 0, 0), task.problems("held_out", 0, 0)
    kept, dropped = decontaminated(train, held_out)
    assert 0 < len(dropped) < 200
    assert decontaminated(kept, held_out)[1] == []
