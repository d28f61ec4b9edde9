"""The command line of the report: whole files, hostile text, exit statuses."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.report.__main__ import main
from tests.analysis_data import demo_outputs, write_run, write_sweep
from tests.conftest import environment


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return demo_outputs(tmp_path)


def report(outputs: Path, *arguments: str) -> int:
    own = [f"output={outputs}", f"reports={outputs.parent / 'reports'}"]
    given = {argument.partition("=")[0] for argument in arguments}
    return main([*(each for each in own if each.partition("=")[0] not in given), *arguments])


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps the text and the attributes."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.EMPTY, f"<{tag} /> is no empty element"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


FIGURES = ("pareto", "differences", "reward_curves", "memory", "memory_by_phase")
TEXTS = ("report.html", "report.md", "results.csv", "differences.csv", "results.tex", "report.json")


def test_a_report_is_whole_files_and_every_figure_twice(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(outputs, "sweep=demo") == 0
    folder = outputs.parent / "reports" / "demo"
    names = {*TEXTS, *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))}
    assert {path.name for path in folder.iterdir()} == names  # and no drafts
    assert set(capsys.readouterr().out.splitlines()) == {str(folder / name) for name in names}
    for name in FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(outputs: Path) -> None:
    assert report(outputs) == 0
    text = (outputs.parent / "reports" / "demo" / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?://", text)
    assert page.links == []
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "Is it worth it?" in page.text


def test_the_json_has_every_number_and_figure(outputs: Path) -> None:
    assert report(outputs) == 0
    content = json.loads((outputs.parent / "reports" / "demo" / "report.json").read_text())
    assert content["format"] == "efficient_rl report 1"
    full, lora = content["summaries"]
    assert (full["label"], full["accuracy"], full["trainable_params"], full["on_front"]) == ("full", 0.6, 4000, True)
    assert (lora["label"], lora["accuracy"], lora["train_seconds"]) == ("lora", 0.45, 12.5)
    [difference] = content["differences"]
    assert (difference["first"], difference["second"]) == ("full", "lora")
    assert difference["accuracy"]["value"] == pytest.approx(0.15)  # 0.5 - 0.4 and 0.7 - 0.5
    assert [figure["name"] for figure in content["figures"]] == list(FIGURES)


def test_the_latex_table_escapes_what_tex_would_obey(tmp_path: Path) -> None:
    params = {key: {"strategy.name": "first_k", "strategy.k": k} for key, k in (("a", "50%_$x$"), ("b", "\\input{a}&~"))}
    write_sweep(tmp_path, "t", params)
    for key in params:
        write_run(tmp_path, key)
    assert main([f"output={tmp_path}", f"reports={tmp_path}", "sweep=t"]) == 0
    table = (tmp_path / "t" / "results.tex").read_text()
    assert r"first\_k k=50\%\_\$x\$" in table
    assert r"\textbackslash{}input\{a\}\&\textasciitilde{}" in table


def test_the_commands_to_reproduce_begin_with_the_commit_and_its_changes(outputs: Path) -> None:
    for key in ("full0", "full1", "lora0", "lora1"):
        path = outputs / "runs" / key / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "code_version": "0123456789ab-dirty-89abcdef"}))
    assert report(outputs) == 0
    lines = (outputs.parent / "reports" / "demo" / "report.md").read_text().splitlines()
    assert lines[-5:] == [
        "    git checkout 0123456789ab",
        "    git apply outputs/code/0123456789ab-dirty-89abcdef/changes.diff",
        "    pip install -c constraints.txt -e .",
        "    python -m efficient_rl.sweep",
        "    python -m analysis.report sweep=demo",
    ]


def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    question = "<script>alert('x')</script> & \"a\" | $\\frac{1$ [x](y) _z_"
    params = {
        "a": {"strategy.name": "<b>$x_", "strategy.k": 1, "seed": 0, "model.name": "<m>$"},
        "b": {"strategy.name": "<b>$x_", "strategy.k": "$\\oops$</td>", "seed": 0, "model.name": "<m>$"},
        "c": {"strategy.name": "<b>$x_", "strategy.k": 1, "seed": 0, "model.name": "$$\\n</p>"},
    }
    write_sweep(tmp_path, "s", params, question=question, command="<i>'\"` && python")
    for key in params:
        write_run(tmp_path, key, code_version="<u>")
    assert main([f"output={tmp_path}", f"reports={tmp_path}"]) == 0
    page = Page((tmp_path / "s" / "report.html").read_text())
    assert question in page.text
    assert "<b>$x_ k=$\\oops$</td>" in page.text
    assert "<i>'\"` && python" in page.text
    assert not {"b", "m", "i", "u"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data and the code
    markdown = (tmp_path / "s" / "report.md").read_text()
    assert not re.search(r"(?<!\\)<(script|b|u|m)", markdown)
    assert "\\| $" in markdown
    assert "[x\\](y)" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {14}


def test_the_table_says_one_seed_and_marks_the_front(outputs: Path) -> None:
    (outputs / "runs" / "full1" / "result.json").unlink()
    path = outputs / "runs" / "full0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": 0.3}))
    assert report(outputs) == 0
    rows = (outputs.parent / "reports" / "demo" / "report.md").read_text().splitlines()
    full = next(row for row in rows if row.startswith("| full |"))
    shared = "60.0% | 0.700 | 0.200 | 3 | 12.5 | 1.23k"
    assert full == f"| full | 4,000 (100%) | 30.0% [one seed] | 30.0% | +10.0 | {shared} | 1 |  |"
    lora = next(row for row in rows if row.startswith("| lora |"))
    # Errors of 0.05 over seeds and 0.025 over problems; t with 1.562 degrees of freedom is 5.69: 31.8 points
    assert lora.startswith("| lora | 500 (12.5%) | 45.0% [13.2%, 76.8%] | 45.0% | +25.0 | ")
    assert lora.endswith(f"{shared} | 2 | yes |")


def test_the_csv_has_every_summary_unrounded(outputs: Path) -> None:
    assert report(outputs) == 0
    header, first, second = (outputs.parent / "reports" / "demo" / "results.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["label"], float(row["accuracy"]), float(row["trainable_params"]), row["on_front"]) == (
        "full",
        0.6,
        4000.0,
        "True",
    )
    assert second.startswith("lora,")


def test_the_same_runs_give_the_same_bytes(outputs: Path) -> None:
    folder = outputs.parent / "reports" / "demo"
    assert report(outputs) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert report(outputs) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_models_are_drawn_in_two_panels(tmp_path: Path) -> None:
    params = {m: {"strategy.name": "full", "seed": 0, "model.name": m} for m in ("small", "large")}
    write_sweep(tmp_path, "s", params)
    for key in params:
        write_run(tmp_path, key)
    assert main([f"output={tmp_path}", f"reports={tmp_path}"]) == 0
    assert "| full, model=small |" in (tmp_path / "s" / "report.md").read_text()


def test_no_finished_run_is_an_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in outputs.glob("runs/*/result.json"):
        path.unlink()
    assert report(outputs) == 2
    assert capsys.readouterr().err == (
        "error: no run of sweep 'demo' is finished (0 of 4); to resume: python -m efficient_rl.sweep\n"
    )
    assert not (outputs.parent / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=dem"], "; did you mean 'demo'? valid: demo, other"),
        (["sweep=../demo"], "; did you mean 'demo'? valid: demo, other"),
        (
            ["swep=demo"],
            "unknown key 'swep'; did you mean 'sweep'? valid: accuracy, output, read, reports, study, sweep, tracking",
        ),
        (["sweep"], "'sweep' has no value; write sweep=VALUE"),
        (["read=everything"], "read='everything' is not known; valid: directories, store"),
        (["accuracy=50"], "accuracy='50' must be a share from 0 to 1, such as accuracy=0.5"),
        (["read=store", "tracking=none"], "read=store needs a store and tracking=none names none"),
        (["read=store"], "no database"),
        (["output=nowhere"], "there is no sweep in nowhere/sweeps; make one with: python -m efficient_rl.sweep"),
        (["output=" + 300 * "a"], "cannot be read (File name too long); name another folder"),
        (["reports=demo.txt"], "reports='demo.txt' is no folder that can be written to"),
        (["reports=demo.txt/below"], "is no folder that can be written to"),
        (["reports=" + 300 * "a"], "is no folder that can be written to"),
        (["sweep=other"], "other/sweep.json; the command that made a sweep rewrites its file"),
    ],
    ids=[
        "unknown sweep",
        "no path",
        "unknown key",
        "no value",
        "unknown source",
        "no share",
        "no store",
        "no database",
        "no folder",
        "too long a name",
        "reports in a file",
        "reports below a file",
        "too long a folder",
        "damaged sweep",
    ],
)
def test_a_bad_request_ends_in_status_2_and_a_remedy(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_sweep(outputs, "other", {})
    (outputs / "sweeps" / "other" / "sweep.json").write_text("[]")
    Path("demo.txt").touch()
    assert report(outputs, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_file_that_cannot_be_written_leaves_no_draft_and_ends_in_status_1(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outputs.parent / "reports" / "demo"
    (folder / "report.html").mkdir(parents=True)  # a folder where the file should go
    assert report(outputs) == 1
    assert "report.html" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_a_report_that_is_cut_off_half_way_leaves_the_earlier_one_whole(outputs: Path) -> None:
    assert report(outputs) == 0
    folder = outputs.parent / "reports" / "demo"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = (
        "import resource\nfrom analysis.report.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"  # like a full disk: a longer file breaks off
        f"raise SystemExit(main(['output={outputs}', 'reports={folder.parent}']))"
    )
    done = run_script(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_help_ends_in_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m analysis.report [sweep=NAME]")


def test_the_command_imports_neither_torch_nor_mlflow(outputs: Path) -> None:
    script = (
        "import sys\nfrom analysis.report.__main__ import main\n"
        f"assert main(['output={outputs}', 'reports={outputs.parent}']) == 0\n"
        "print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    )
    done = run_script(script)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
