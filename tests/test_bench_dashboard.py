"""The dashboard's queries, judged by Prometheus' own tool; and the picture that is made of its answers."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.dashboard import DASHBOARD, Series, legend, main, picture, shown, substituted

BOARD = json.loads(DASHBOARD.read_text("utf-8"))
TARGETS = [target for panel in BOARD["panels"] for target in panel["targets"]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Prometheus")
def test_every_query_of_the_dashboard_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    def judged(expressions: list[str]) -> bool:
        rules = [{"record": f"number_{number}", "expr": each} for number, each in enumerate(expressions)]
        file = tmp_path / "rules.yml"
        file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
        command = ["promtool", "check", "rules", str(file)]
        return not subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    queries = [substituted(target["expr"], "job", "1m") for target in TARGETS]
    assert len(queries) > 15 and not any("$" in each for each in queries)
    assert judged(queries)
    assert not judged([queries[0] + ")"]), "it would tell"


def test_picture_shows_each_panel_its_answers_and_who_drew_it() -> None:
    found = {panel["id"]: [Series("one <line>", [(0.0, 1.0), (1.0, 2.0), (5.0, 3.0)])] for panel in BOARD["panels"]}
    found[BOARD["panels"][-1]["id"]] = [Series("", [])]
    drawn = picture(BOARD, found, 0.0, 10.0, "Prometheus 1.2.3")
    texts = [each.text or "" for each in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 -- ours
    assert {panel["title"] for panel in BOARD["panels"]} <= set(texts)
    assert texts.count("no data") == 1 and "one <line>" in texts
    assert "answered by Prometheus 1.2.3 over 10 s" in texts[1] and texts[1].endswith("not by Grafana")
    graphs = sum(panel["type"] == "timeseries" for panel in BOARD["panels"]) - 1
    assert len(re.findall(r'd="M[^M"]*L[^M"]*M[^"]*"', drawn)) == graphs, "a gap in the answers stays one"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.256, "percentunit", "25.6 %"),
        (12_500, "short", "12.5 k"),
        (3, "short", "3"),
        (2_500_000, "Bps", "2.5 MB/s"),
        (3 << 30, "bytes", "3 GiB"),
        (0, "bytes", "0 B"),
    ],
)
def test_value_has_its_unit(value: float, unit: str, words: str) -> None:
    assert shown(value, unit) == words


def test_legend_has_the_labels_of_its_series() -> None:
    labels = {"direction": "sent", "outcome": "stored"}
    assert legend("{{direction}}, {{outcome}}", labels) == "sent, stored"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus")
def test_picture_is_made_of_a_real_run(tmp_path: Path) -> None:
    assert main([f"--svg={tmp_path / 'picture.svg'}", "--seconds=8"]) == 0
    drawn = (tmp_path / "picture.svg").read_text()
    assert "received, stored" in drawn and "accepted" in drawn and "running" in drawn
