"""Data files as people have them: each is read, or the error names the file and the remedy in one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efficient_rl.errors import ConfigError
from efficient_rl.tasks.datasets import Table
from efficient_rl.tasks.problem import Problem

ROWS = [{"question": f"How many, {i} or “{i + 1}”?", "answer": str(i)} for i in range(12)]


def problems(path: Path, **options: Any) -> list[Problem]:
    """All problems of a file."""
    return Table(path=str(path), check="number", held_out="all", **options).problems("held_out", 0, 0)


def found(path: Path, **options: Any) -> set[tuple[str, str]]:
    return {(problem.question, problem.gold["answer"]) for problem in problems(path, **options)}


def expected() -> set[tuple[str, str]]:
    return {(row["question"], row["answer"]) for row in ROWS}


def json_lines() -> str:
    return "".join(json.dumps(row) + "\n" for row in ROWS)


def table(delimiter: str = ",", end: str = "\n") -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end)
    writer.writerow(ROWS[0])
    writer.writerows(row.values() for row in ROWS)
    return stream.getvalue()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


def zstandard(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


TEXTS: dict[str, str] = {
    "d.jsonl": json_lines(),
    "d.json": json.dumps(ROWS),
    "d.csv": table(),
    "d.tsv": table("\t"),
}
READ: list[tuple[str, bytes]] = [
    *((name, text.encode("utf-8-sig")) for name, text in TEXTS.items()),
    *((name, text.encode(encoding)) for name, text in TEXTS.items() for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
    *((name, text.encode("utf-32")) for name, text in TEXTS.items()),
    *((name, text.replace("\n", "\r\n").encode()) for name, text in TEXTS.items()),
    *((name, (text + "\n\n  \n").encode()) for name, text in TEXTS.items()),
    *((name.upper(), text.encode()) for name, text in TEXTS.items()),
    *((f"{name}.gz", text.encode()) for name, text in TEXTS.items()),
    *((name, gzip.compress(text.encode("utf-8-sig"))) for name, text in TEXTS.items()),
    *((f"{name}.GZ", gzip.compress(text.encode())) for name, text in TEXTS.items()),
    ("d.jsonl.bz2", bz2.compress(json_lines().encode())),
    ("d.csv.xz", lzma.compress(table().encode())),
    ("d.jsonl.zst", zstandard(json_lines().encode())),
    ("d.json", json_lines().encode()),
    ("d.jsonl", json_lines().encode("utf-8-sig").replace(b"\n", b"\n\xef\xbb\xbf", 1)),
    ("d.json", json.dumps(ROWS[0]).encode() + b"\n" + "".join(json.dumps(row) + "\n" for row in ROWS[1:]).encode()),
    ("d.jsonl", json.dumps(ROWS, indent=2).encode()),
    ("d.jsonl", b"\n  " + json.dumps(ROWS).encode()),
    ("d.csv", table(";").encode()),
    ("d.csv", table("\t").encode()),
    ("d.csv", table("|").encode()),
    ("d.csv", ("sep=;\r\n" + table(";")).encode("utf-8-sig")),
    ("d.csv", table(end="\r").encode()),
    ("d.csv", table().replace("question,answer", ' "question" , answer').encode()),
    ("d.csv", ("\n" + table().replace("\n", ",\n")).encode()),
    ("d.csv", ("id,answer,question\n" + "".join(f'7,{r["answer"]},"{r["question"]}"\n' for r in ROWS)).encode()),
    ("d.parquet", parquet()),
    ("D.PARQUET", parquet()),
    ("d.parquet.gz", gzip.compress(parquet())),
    ("d.jsonl", parquet()),
]


@pytest.mark.parametrize(("name", "content"), READ, ids=range(len(READ)))
def test_every_form_of_a_file_gives_the_same_problems(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert found(tmp_path / name) == expected()


DAMAGED = [
    ("d", json_lines().encode(), r"'d' has no known ending; use one of \.jsonl, \.json, \.csv, \.tsv, \.parquet, also"),
    ("d.txt", json_lines().encode(), r"'d\.txt' has no known ending"),
    ("d.xlsx", b"PK\x03\x04rest", r"'d\.xlsx' has no known ending"),
    ("d.csv", b"PK\x03\x04rest", r"d\.csv is a zip archive or an Excel workbook; unpack it, or save it as CSV"),
    (
        "d.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid",
        r"d\.jsonl is a pointer of Git LFS; run `git lfs pull`",
    ),
    ("d.json", b"<!DOCTYPE html><html>", r"d\.json is a web page; download the file itself"),
    ("d.parquet", parquet()[:-20], r"d\.parquet is no whole Parquet file \(.*\); copy it again"),
    ("d.parquet", parquet()[:200], r"d\.parquet is no whole Parquet file"),
    ("d.parquet", json_lines().encode(), r"d\.parquet is no whole Parquet file"),
    ("d.parquet", b"", r"d\.parquet is no whole Parquet file"),
    ("d.jsonl.gz", gzip.compress(json_lines().encode())[:-12], r"d\.jsonl\.gz is damaged .*copy it again"),
    ("d.jsonl.gz", gzip.compress(bytes(range(256)) * 99)[:60], r"d\.jsonl\.gz is (damaged|no text)"),
    ("d.jsonl.xz", lzma.compress(json_lines().encode())[:-30], r"d\.jsonl\.xz is damaged"),
    (
        "d.csv",
        "question,answer\ncafé,1\n".encode("cp1252"),
        r"d\.csv is no text in utf-8 \(it has a byte 0xe9\); save it as UTF-8",
    ),
    (
        "d.csv",
        b"question,answer\nHow many, in all?,5\n",
        r"d\.csv, line 2: more cells than the 2 of the header; put double quotes",
    ),
    ("d.jsonl", b'{"question": 1}\n{oops\n', r"d\.jsonl, line 2: .*; every line must hold one JSON object"),
    ("d.json", b'[{"question": "1"},', r"d\.json: .*; every line must hold one JSON object, or the file one list"),
    ("d.json", b"[1]", r"d\.json, object 1 is a int; it must be an object"),
    ("d.jsonl", b'"text"\n', r"d\.jsonl, line 1 is a str; it must be an object"),
    ("d.jsonl", b"[" * 100_000, r"d\.jsonl: .*; every line must hold"),
    ("d.json", b"{}", r"d\.json has no rows with columns"),
    ("d.csv", b"", r"d\.csv has no rows with columns"),
    ("d.csv", b"question,answer\n", r"d\.csv has no rows with columns"),
    ("d.json", b'{"data": [{"question": "1"}]}', r"task\.question='question' is no column of .*d\.json; .*valid: data"),
]


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED, ids=range(len(DAMAGED)))
def test_what_cannot_be_read_is_named_with_a_remedy_in_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        problems(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_a_split_is_read_and_one_without_it_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "default" / "train").mkdir(parents=True)
    (tmp_path / "default" / "train" / "0000.parquet").write_bytes(parquet())
    assert found(tmp_path) == expected()
    with pytest.raises(ValueError, match=r"no file for the split 'test'; .* there is default/train/0000\.parquet"):
        problems(tmp_path, split="test")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"question": "questoin"},
            r"task\.question='questoin' is no column of .*; did you mean 'question'\? valid: answer, que",
        ),
        ({"answer": ["Anser", "gold"]}, r"task\.answer='Anser' is no column of .*; did you mean 'answer'\?"),
        ({"difficulty": "level"}, r"task\.difficulty='level' is no column of .*valid: answer, question"),
        ({"where": {"langage": "en"}}, r"task\.where='langage' is no column of .*valid: answer, question"),
    ],
)
def test_a_misspelt_column_lists_the_columns_that_there_are(
    tmp_path: Path, ending: str, options: dict[str, Any], says: str
) -> None:
    path = tmp_path / f"d.{ending}"
    path.write_bytes({"jsonl": json_lines().encode(), "csv": table().encode(), "parquet": parquet()}[ending])
    with pytest.raises(ConfigError, match=says):
        problems(path, **options)


def test_a_misspelt_column_that_may_be_missing_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d.jsonl").write_text(json_lines())
    assert found(tmp_path / "d.jsonl", source="sorce") == expected()
    assert "task.source='sorce' is no column of" in caplog.text


NESTED = [
    {
        "data_source": "x",
        "prompt": [{"role": "user", "content": row["question"]}],
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {"level": {"name": "3"}, "index": 1},
    }
    for row in ROWS
]
COLUMNS = {"question": "prompt", "answer": "reward_model.ground_truth", "difficulty": "extra_info.level.name"}


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv"])
def test_verls_files_are_read_with_nested_columns_and_messages(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(NESTED), path)
    elif ending == "csv":  # as pandas writes nested columns
        with path.open("w") as stream:
            writer = csv.writer(stream)
            writer.writerows([list(NESTED[0]), *(map(str, row.values()) for row in NESTED)])
    else:
        path.write_text(json.dumps(NESTED) if ending == "json" else "".join(json.dumps(row) + "\n" for row in NESTED))
    assert found(path, **COLUMNS, where={"reward_model.style": "rule"}) == expected()
    assert {problem.difficulty for problem in problems(path, **COLUMNS)} == {3.0}
    if ending != "csv":
        with pytest.raises(
            ConfigError, match=r"did you mean 'reward_model\.ground_truth'\? valid: .*extra_info\.level\.name"
        ):
            problems(path, **{**COLUMNS, "answer": "reward_model.groundtruth"})


def test_a_dotted_name_is_first_the_column_of_that_name(tmp_path: Path) -> None:
    rows = [{"a.b": "1", "a": {"b": "2"}, "q": "One?"}]
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[0]))
    assert found(tmp_path / "d.jsonl", question="q", answer="a.b") == {("One?", "1")}
    pq.write_table(pa.table({"a.b": ["1"], "q": ["One?"]}), tmp_path / "d.parquet")
    assert found(tmp_path / "d.parquet", question="q", answer="a.b") == {("One?", "1")}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ([user("Two?")], "Two?"),
        (user("Two?"), "Two?"),
        (["Two?"], "Two?"),
        ([{"role": "system", "content": "Think."}, user("Two?")], "Think.\n\nTwo?"),
        ([user("Two?"), {"role": "assistant", "content": "2"}], "Two?"),
        ([{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}], "Two?"),
        ([{"role": "user", "content": [{"type": "text", "text": "Two?"}]}], "Two?"),
        (json.dumps([user("Two?")]), "Two?"),
        (str([user("It's two?")]), "It's two?"),
        ("[2, 3] has how many?", "[2, 3] has how many?"),
        ('["a"] is what', '["a"] is what'),
        ([user("One?"), {"role": "assistant", "content": "1"}, user("Two?")], None),
        ([{"role": "assistant", "content": "2"}], None),
        ([], None),
        ([user("One?"), "Two?"], None),
        ({"text": "Two?"}, None),
        (7, None),
    ],
)
def test_a_question_is_a_text_or_the_messages_of_one_turn(tmp_path: Path, question: Any, text: str | None) -> None:
    rows = [{"question": question, "answer": "2"}, {"question": "Else?", "answer": "1"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {problem.question for problem in problems(tmp_path / "d.jsonl")} == {"Else?"} | ({text} if text else set())


ANSWERS: list[tuple[Any, str | None]] = [
    (["2"], "2"), ([["2"]], "2"), ([2.0], "2"), ('["2"]', "2"), ("['2']", "2"),
    ([{"role": "assistant", "content": "2"}], "2"),
    (5, "5"), (5.0, "5"), (-0.0, "0"), (0.5, "0.5"), (3e16, "30000000000000000"), (2e-05, "0.00002"), (1e22, "1" + "0" * 22),
    (123456789012345678901234567890, "123456789012345678901234567890"), ("3e+16", "30000000000000000"), ("2e-05", "0.00002"),
    ("3e16", "30000000000000000"), ("1.5E3", "1500"),
    ("5.50", "5.50"), (0.1 + 0.2, "0.30000000000000004"),
    (["2", "3"], None), ([], None), ({"ground_truth": "5"}, None), ('{"ground_truth": "5"}', None), ([{"a": 1}], None),
    (float("nan"), None), (float("inf"), None), (None, None), (True, None), ("", None), ("  ", None), ("nan", None),
    ("NaN", None), ("null", None), ([None], None), ([True], None),
]  # fmt: skip


@pytest.mark.parametrize("check", ["math", "number"])
@pytest.mark.parametrize(("value", "answer"), ANSWERS, ids=map(repr, (value for value, _ in ANSWERS)))
def test_answers_that_are_no_texts_are_read_exactly_or_left_out(
    tmp_path: Path, check: str, value: Any, answer: str | None
) -> None:
    rows = [{"question": "What?", "answer": value}, {"question": "Else?", "answer": "1"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = Table(path=str(tmp_path / "d.jsonl"), check=check, held_out="all")
    golds = {problem.question: problem.gold["answer"] for problem in table.problems("held_out", 0, 0)}
    wanted = "5.5" if (check, answer) == ("number", "5.50") else answer
    assert golds == {"Else?": "1"} | ({} if wanted is None else {"What?": wanted})


def test_numbers_in_32_bits_and_decimals_are_read_as_they_are_written(tmp_path: Path) -> None:
    short = pa.array([0.1, 2e-5, 16777216.0], pa.float32())
    exact = pa.array(["1.50", "0.00", "20"]).cast(pa.decimal128(10, 2))
    names = pa.array(["a?", "b?", "c?"])
    pq.write_table(pa.table({"question": names, "answer": short, "other": exact}), tmp_path / "d.parquet")
    assert found(tmp_path / "d.parquet") == {("a?", "0.1"), ("b?", "0.00002"), ("c?", "16777216")}
    assert found(tmp_path / "d.parquet", answer="other") == {("a?", "1.5"), ("b?", "0"), ("c?", "20")}


def test_left_out_answers_are_counted_with_an_example_and_all_of_them_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": f"What, {i}?", "answer": {"ground_truth": str(i)}} for i in range(3)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": "Else?", "answer": "1"}]))
    assert len(Table(path=str(path), held_out="all").problems("held_out", 0, 0)) == 1
    assert "no answer that parses: 3 (such as {'ground_truth': '0'})" in caplog.text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ConfigError, match=r"no row of .* \(no answer that parses: 3 .*there are question, answer\.ground_truth"
    ):
        Table(path=str(path), held_out="all").problems("held_out", 0, 0)
    assert found(path, answer="answer.ground_truth") == {(f"What, {i}?", str(i)) for i in range(3)}
