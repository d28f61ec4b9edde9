"""Reads the summary of a search (`search.json`), or its study while it runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "search.json"


def read_search(folder: Path, url: str | None = None) -> Mapping[str, Any] | None:
    """The search whose runs a sweep's folder lists; None where it was none.

    `url` is the database of a running search, if it has one. ConfigError where that
    does not hold the search; ValueError where the file is damaged.
    """
    content: dict[str, Any] = {}
    if (folder / FILE).exists():
        content = dict(json.loads((folder / FILE).read_text(encoding="utf-8")))
    if content.keys() & {"arms", "importances"}:
        return content
    if url is None and not (folder / "study.journal").exists():
        return content or None
    from efficient_rl.search.study import read_study
    from efficient_rl.search.summary import importances, summarize

    study = read_study(folder, url)
    if study is None:
        return content or None
    content = content or summarize(study, folder.parents[1] / "runs")
    return content | {"importances": importances(study)}
