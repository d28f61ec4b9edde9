"""The page in a real browser: no error on its console, every figure drawn, light and dark, from a file."""

import html
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.data.load import BLOCKS, DIFFICULTY, REWARD, Run, SweepData, make_series
from analysis.report.__main__ import write_report
from tests.analysis_data import runs_of

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine; install chromium")
PROBE = """
<script>
addEventListener("error", (event) => document.body.setAttribute("data-error", event.message));
</script>
"""
ASK = """
<script>
const boxes = [...document.querySelectorAll("section:not([hidden]) .label")].map((each) => each.getBoundingClientRect());
const named = boxes.length + document.querySelectorAll('[data-figure="pareto"] .legend .key').length;
const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
const clashes = boxes.flatMap((a, i) => boxes.slice(0, i).filter((b) => !apart(a, b))).length;
const panels = document.querySelectorAll("section:not([hidden]) .panel");
const empty = [...panels].filter((panel) => panel.querySelectorAll("svg *").length < 5).length;
document.querySelectorAll(".tabs button")[1].click();
const second = document.querySelector('section[data-figure="pareto_seconds"]');
document.querySelector("table.sortable th:nth-child(3)").click();
document.querySelector("table.sortable th:nth-child(3)").click();
const names = [...document.querySelectorAll("table.sortable")][0].tBodies[0].rows[0].cells[0].textContent;
document.querySelector("[data-tip]").dispatchEvent(new PointerEvent("pointerover", { bubbles: true, clientX: 5 }));
document.body.insertAdjacentHTML("beforeend", `<p id="found">panels ${panels.length} empty ${empty} ` +
  `named ${named} clashes ${clashes} second ${!second.hidden && second.querySelectorAll("circle").length} ` +
  `lowest ${names} ` +
  `tip ${!document.getElementById("tip").hidden} paper ${getComputedStyle(document.body).backgroundColor} ` +
  `wide ${document.documentElement.scrollWidth > innerWidth}</p>`);
</script>
"""


def rich_runs() -> tuple[Run, ...]:
    """Runs that have something for every figure; names hostile and long."""
    found = []
    places: Mapping[str, tuple[float, int, float]] = {
        "full": (0.6, 4000, 40.0), "last_k": (0.58, 1300, 20.0), "lora": (0.57, 500, 38.0), "<b>$x$</b>": (0.3, 90, 30.0),
        "a_strategy_with_a_very_long_name_that_goes_on": (0.55, 1250, 21.0),
    }  # fmt: skip
    for name, (accuracy, size, seconds) in places.items():
        levels = {"2": accuracy, "3": accuracy / 2}
        own = runs_of(name, [accuracy - 0.02, accuracy, accuracy + 0.03], size, train_seconds=seconds, by_difficulty=levels)
        for run in own:
            curve = [(step, accuracy * step / (step + 5)) for step in range(1, 31)]
            series = {REWARD: curve, DIFFICULTY: [(step, 2 + step / 30) for step in range(1, 31)]}
            if name == "full":
                series |= {f"{BLOCKS}00": [(1, 1.0), (11, 0.0)], f"{BLOCKS}01": [(1, 0.0), (11, 0.5)]}
            found.append(replace(run, series={key: make_series(points) for key, points in series.items()}))
    return tuple(found)


def browse(page: Path, *options: str) -> tuple[str, str]:
    """The page's content after its scripts ran, and what the browser wrote to its log."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1100,900",
        f"--user-data-dir={page.parent / 'profile'}", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("scheme", "paper"),
    [
        pytest.param("light", "rgb(255, 255, 255)", marks=pytest.mark.slow),
        ("dark", "rgb(22, 24, 28)"),
    ],
)
def test_the_page_draws_every_figure_without_an_error(tmp_path: Path, scheme: str, paper: str) -> None:
    write_report(SweepData("s", 0.0, "c", "Why?", rich_runs()), tmp_path)
    page = tmp_path / "s" / "report.html"
    text = page.read_text()
    page.write_text(text.replace("<body>", f"<body>{PROBE}").replace("</body>", f"{ASK}</body>"))
    content, log = browse(page, *(["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []))
    assert "CONSOLE" not in log, log
    assert "data-error" not in content.replace(PROBE.strip(), ""), re.findall('data-error="[^"]*"', content)
    found = re.search(r'<p id="found">(.*?)</p>', content)
    assert found is not None
    words = html.unescape(found[1])
    # Shown: the first of the costs, differences, reward, difficulty over time and by difficulty, memory twice, blocks.
    assert "panels 8 empty 0 named 5 clashes 0 second 5 " in words
    assert "lowest <b>$x$</b> tip true" in words
    assert f"paper {paper} wide false" in words


def test_the_page_asks_nothing_of_the_network_and_says_so_to_the_browser(tmp_path: Path) -> None:
    write_report(SweepData("s", 0.0, "c", None, rich_runs()), tmp_path)
    page = tmp_path / "s" / "report.html"
    assert page.stat().st_size < 6_000_000
    stolen = '<img src="https://example.org/x.png" /></body>'
    page.write_text(page.read_text().replace("</body>", stolen))
    _, log = browse(page)
    assert "violates the following Content Security Policy directive" in log
