"""A picture of deploy/grafana.json: its own queries, asked of a real Prometheus that has watched a real server.

    python -m bench.dashboard [--svg FILE] [--seconds COUNT]

A server with metrics is put to work for so many seconds: files of all sizes there and back, wrong passwords, a quota
that fills, a program for what arrives. Prometheus, the distribution's, scrapes it each second; then it is asked what
each panel asks, and the answers are drawn in the panels' places.

Rules: nothing is drawn that Prometheus has not answered. Grafana draws more beautifully, and is not asked: the picture
says so.
"""

import argparse
import html
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HOME = Path(__file__).resolve().parent.parent
DASHBOARD = HOME / "deploy/grafana.json"
_PASSWORD = "correct horse, battery"  # noqa: S105 -- of a folder that is removed
_JOB = "secure-file-transfer"
_RATE = "15s"  # what Grafana would put for $__rate_interval, at a scrape each second
_COLUMN, _ROW, _HEAD = 60, 30, 50  # pixels; a dashboard has 24 columns
_COLOURS = ("#3274d9", "#56a64b", "#e0752d", "#c4162a", "#8f3bb8", "#1f9e9e", "#b8870b", "#6b7280")
_LAST_SECONDS = 4  # for what was done last to be scraped
_MOST_SHOWN = 8  # series in one panel

Sample = tuple[float, float]


class Series(NamedTuple):
    """One line of a panel."""

    name: str
    samples: list[Sample]


# --- asking ---


def substituted(expression: str, job: str, rate: str) -> str:
    """A panel's query with its variables as Grafana would put them for all instances."""
    return expression.replace("$job", job).replace("$instance", ".*").replace("$__rate_interval", rate)


def legend(form: str, labels: dict[str, str]) -> str:
    """`{{direction}}, {{outcome}}` with the labels of a series."""
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def asked(
    prometheus: str, expression: str, begin: float, end: float, step: int
) -> list[tuple[dict[str, str], list[Sample]]]:
    """What Prometheus answers to a query over a time. Raises SystemExit when it does not like it."""
    words = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": step})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{words}", timeout=30) as answer:  # noqa: S310 -- http
        found = json.load(answer)
    if found["status"] != "success":
        raise SystemExit(f"Prometheus does not take {expression}: {found}")
    return [
        (each["metric"], [(float(at), float(value)) for at, value in each["values"] if value not in ("NaN", "+Inf")])
        for each in found["data"]["result"]
    ]


def series_of(panel: dict[str, Any], prometheus: str, begin: float, end: float) -> list[Series]:
    """The lines of one panel."""
    found: list[Series] = []
    for target in panel["targets"]:
        expression = substituted(target["expr"], _JOB, _RATE)
        for labels, samples in asked(prometheus, expression, begin, end, 1):
            found.append(Series(legend(target["legendFormat"], labels), samples))
    return found


# --- drawing ---


def shown(value: float, unit: str) -> str:
    """A value with its unit, as short as on a dashboard."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    step, letters = (1000, " kMGT") if unit in ("short", "Bps") else (1024, " KMGT")
    power = 0
    while abs(value) >= step and power < len(letters) - 1:
        value, power = value / step, power + 1
    letter = letters[power].strip()
    if unit == "short":
        return f"{value:.3g}{' ' + letter if letter else ''}"
    binary = "i" if unit == "bytes" and letter else ""
    return f"{value:.3g} {letter}{binary}B{'/s' if unit == 'Bps' else ''}"


def _text(x: float, y: float, words: str, size: int = 12, colour: str = "#24292e", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" {more}>{html.escape(words)}</text>'


def _drawn(panel: dict[str, Any], lines: list[Series], begin: float, end: float) -> list[str]:
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "short")
    x, y = place["x"] * _COLUMN + 4, place["y"] * _ROW + _HEAD
    width, height = place["w"] * _COLUMN - 8, place["h"] * _ROW - 8
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="#fff" stroke="#d8dbe0"/>']
    parts.append(_text(x + 10, y + 20, panel["title"], 13, more='font-weight="600"'))
    lines = [each for each in lines if each.samples]
    if not lines:
        parts.append(_text(x + width / 2, y + height / 2, "no data", 13, "#6b7280", 'text-anchor="middle"'))
    elif panel["type"] == "stat":
        last = lines[0].samples[-1][1]
        parts.append(
            _text(x + width / 2, y + height / 2 + 22, shown(last, unit), 34, "#3274d9", 'text-anchor="middle"')
        )
    else:
        parts += _graph(lines, defaults, unit, (x + 70, y + 34, width - 84, height - 90), (begin, end))
        parts += _legend(lines, x + 12, y + height - 26, width - 24)
    return parts


def _graph(
    lines: list[Series],
    defaults: dict[str, Any],
    unit: str,
    box: tuple[float, float, float, float],
    times: tuple[float, float],
) -> list[str]:
    left, top, width, height = box
    begin, end = times
    highest = defaults.get("max") or max(value for each in lines for _, value in each.samples) * 1.05 or 1.0
    parts: list[str] = []
    for mark in range(5):
        at = top + height * (1 - mark / 4)
        parts.append(f'<path d="M{left:.1f} {at:.1f}h{width:.1f}" stroke="#e5e7eb"/>')
        parts.append(_text(left - 6, at + 4, shown(highest * mark / 4, unit), 11, "#6b7280", 'text-anchor="end"'))
    for mark in range(5):
        at = left + width * mark / 4
        words = time.strftime("%M:%S", time.gmtime((end - begin) * mark / 4))
        parts.append(_text(at, top + height + 16, words, 11, "#6b7280", 'text-anchor="middle"'))
    for number, each in enumerate(lines[:_MOST_SHOWN]):
        points: list[str] = []
        before = None
        for at, value in each.samples:
            command = "M" if before is None or at - before > 1.5 else "L"  # a gap stays one
            across, up = (at - begin) / (end - begin) * width, min(value / highest, 1.0) * height
            points.append(f"{command}{left + across:.1f} {top + height - up:.1f}")
            before = at
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<path d="{"".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return parts


def _legend(lines: list[Series], x: float, y: float, width: float) -> list[str]:
    parts: list[str] = []
    at = x
    for number, each in enumerate(lines[:_MOST_SHOWN]):
        needed = 26 + 6.6 * len(each.name)
        if at + needed > x + width and at > x:
            at, y = x, y + 15
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<path d="M{at:.1f} {y - 4:.1f}h12" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(at + 16, y, each.name, 11))
        at += needed
    return parts


def picture(board: dict[str, Any], found: dict[int, list[Series]], begin: float, end: float, version: str) -> str:
    """The whole dashboard as SVG."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * _COLUMN, rows * _ROW + _HEAD + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="Inter, Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#f4f5f7"/>',
        _text(10, 22, board["title"], 17, more='font-weight="600"'),
        _text(
            10,
            41,
            f"deploy/grafana.json: its queries, answered by {version} over {end - begin:.0f} s of a real run,"
            " and drawn by bench/dashboard.py, not by Grafana",
            12,
            "#6b7280",
        ),
    ]
    for panel in board["panels"]:
        parts += _drawn(panel, found[panel["id"]], begin, end)
    return "\n".join([*parts, "</svg>", ""])


# --- the run ---


class _Run:
    """A server, Prometheus and clients in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._started = folder, list[subprocess.Popen[bytes]]()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}
        for name, words in (("password", _PASSWORD), ("wrong", "not " + _PASSWORD)):
            (folder / name).touch(0o600)
            (folder / name).write_text(words + "\n")
        (folder / "hook").write_text("#!/bin/sh\nfiles=$(wc -l)\nsleep 0.2\n[ $((files % 5)) -ne 0 ]\n")
        (folder / "hook").chmod(0o755)
        self._flags = [
            "--config=/dev/null",
            f"--accounts={folder / 'accounts.txt'}",
            f"--storage={folder / 'received'}",
        ]
        self._flags.append(f"--server-log={folder / 'server.log'}")
        for user, quota in (("alice", "600M"), ("bob", "none")):
            limits = ["--quota", quota, "--quota-files", "4000"] if user == "alice" else []
            self._program(
                "server.py", *self._flags, "adduser", user, "--password-file", str(folder / "password"), *limits
            )

    def _program(self, *words: str) -> int:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=HOME, env=self._environment, capture_output=True, check=False)
        return done.returncode

    def serve(self) -> str:
        """Start the server; where it can be scraped."""
        hook = f"--on-delivered={self.folder / 'hook'}"
        flags = ["--port=0", "--listen=127.0.0.1", "--metrics=127.0.0.1:0", hook, "--on-delivered-at-once=2"]
        server = subprocess.Popen(
            [sys.executable, "server.py", *self._flags, *flags],
            cwd=HOME,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(server)
        if server.stdout is None:
            raise RuntimeError("a program without its pipes")
        said = [server.stdout.readline().decode() for _ in range(4)]
        self._port = said[0].strip().rpartition(":")[2]
        return (
            next(line for line in said if line.startswith("metrics at ")).strip().partition("//")[2].partition("/")[0]
        )

    def watch(self, target: str) -> str:
        """Start Prometheus; where it answers."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        scrapes = {"job_name": _JOB, "static_configs": [{"targets": [target]}]}
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrapes]}
        (self.folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        command = ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
        quiet = subprocess.DEVNULL
        self._started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))
        place = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{place}/-/ready", timeout=5).close()  # noqa: S310 -- http
                return place
            except OSError:
                if time.monotonic() > end:
                    raise SystemExit("Prometheus has not started") from None
                time.sleep(0.2)

    def work(self, seconds: float) -> None:
        """Let two users send and fetch what they have, again and again, and somebody guess passwords."""
        sources = self.folder / "sources"
        for number in range(300):
            path = sources / f"small/{number % 10}/{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(3000))
        (sources / "large").write_bytes(os.urandom(1 << 20) * 80)
        end, round = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            round += 1
            small = ["alice", str(sources / "small"), f"batch-{round}"]
            jobs = [small, ["bob", str(sources / "large"), f"large-{round}", "--limit", "12M"]]
            jobs.append(["bob", "--get", f"large-{round - 1}", str(self.folder / f"back-{round}"), "--limit", "8M"])
            jobs.append(["alice", str(sources / "large"), f"large-{round}"] if round % 2 else ["wrong", "--list"])
            running = [self._client(*words) for words in jobs[: 2 if round == 1 else None]]
            for each in running:
                each.wait()

    def _client(self, user: str, *words: str) -> "subprocess.Popen[bytes]":
        password = self.folder / ("wrong" if user == "wrong" else "password")
        name = "alice" if user == "wrong" else user
        flags = ["--config=/dev/null", "--host=127.0.0.1", f"--port={self._port}", f"--user={name}", "--retries=0"]
        command = [sys.executable, "client.py", *flags, f"--password-file={password}", "--client-log=off", *words]
        quiet = subprocess.DEVNULL
        client = subprocess.Popen(command, cwd=HOME, env=self._environment, stdin=quiet, stdout=quiet, stderr=quiet)
        self._started.append(client)
        return client

    def close(self) -> None:
        """End all."""
        for each in reversed(self._started):
            each.terminate()
        for each in self._started:
            try:
                each.wait(20)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
            if each.stdout is not None:
                each.stdout.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, ask and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description="Draw the dashboard of a real run.")
    parser.add_argument("--svg", type=Path, default=HOME / "docs/dashboard.svg", help="the picture")
    parser.add_argument("--seconds", type=int, default=120, help="how long the server works (default: 120)")
    options = parser.parse_args(arguments)
    if shutil.which("prometheus") is None:
        raise SystemExit("there is no prometheus; Debian's package has it")
    said = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=True)
    version = "Prometheus " + ((said.stdout or said.stderr).split()[2])
    board = json.loads(DASHBOARD.read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="dashboard-") as folder:
        run = _Run(Path(folder))
        try:
            prometheus = run.watch(run.serve())
            begin = time.time()
            run.work(options.seconds)
            time.sleep(_LAST_SECONDS)
            end = time.time()
            found = {panel["id"]: series_of(panel, prometheus, begin, end) for panel in board["panels"]}
        finally:
            run.close()
    options.svg.write_text(picture(board, found, begin, end, version), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
