"""What Prometheus reads from a server, by the library's own parser; and the dashboard that is made of it."""

import http.client
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import MakeServer
from processes import MIB, USER, Client, Server, clean_environment, make, run_python, wait_until
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from test_architecture import TOP

from sft.disk.amounts import Amount
from sft.server.activity import FILE_OUTCOMES, LOGIN_OUTCOMES, Activity
from sft.server.hooks import HOOK_OUTCOMES, Hooks
from sft.server.metrics import Metrics

LOG = logging.getLogger("test_metrics")
LOG.propagate = False
DASHBOARD = TOP / "deploy/grafana.json"


class Storage:
    """One whose disk does what a test wants."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.ledgers = self

    def free(self) -> int:
        assert self.goes_on.wait(20)
        return 4096

    def used(self, name: str) -> Amount:
        if name == "damaged":
            raise OSError("a disk")
        return Amount(100, 2)


def account(name: str, quota: int | None, quota_files: int | None) -> Any:
    return cast(Any, _Account(name, quota, quota_files))


class _Account:
    def __init__(self, name: str, quota: int | None, quota_files: int | None) -> None:
        self.name = self.home = name
        self.quota, self.quota_files = quota, quota_files
        self.has_quota = quota is not None or quota_files is not None


@pytest.fixture
def disk() -> Iterator[Storage]:
    made = Storage()
    yield made
    made.goes_on.set()


def metrics_of(activity: Activity, disk: Storage, stopping: bool = False, seconds: float = 20) -> Metrics:
    everybody = [account("alice", 1000, None), account("bob", None, 7), account("carol", None, None)]
    everybody.append(account("damaged", 1, 1))
    accounts = cast(Any, SimpleNamespace(all=lambda: everybody))
    return Metrics(activity, Hooks(LOG), lambda: 3, accounts, cast(Any, disk), lambda: stopping, seconds)


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample's number by its name and labels."""
    found: list[Sample] = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}


def test_every_number_is_what_it_says(disk: Storage) -> None:
    activity = Activity()
    activity.login("accepted")
    activity.login("throttled")
    activity.begin(1, "alice", "192.0.2.1", SimpleNamespace(bytes_received=10, bytes_sent=20))
    answer = metrics_of(activity, disk, stopping=True).answer()
    assert answer.kind.startswith("text/plain; version=")
    samples = samples_of(answer.text)
    assert samples["sft_connections_not_logged_in", ()] == 3
    assert samples["sft_connections", ()] == 1 and samples["sft_draining", ()] == 1
    assert samples["sft_storage_free_bytes", ()] == 4096
    assert samples["sft_bytes_total", (("direction", "received"),)] == 10
    assert samples["sft_bytes_total", (("direction", "sent"),)] == 20
    logins = {dict(labels)["outcome"]: count for (name, labels), count in samples.items() if name == "sft_logins_total"}
    assert logins == dict.fromkeys(LOGIN_OUTCOMES, 0) | {"accepted": 1, "throttled": 1}
    hooks = {dict(labels)["outcome"]: count for (name, labels), count in samples.items() if name == "sft_hooks_total"}
    assert hooks == dict.fromkeys(HOOK_OUTCOMES, 0)
    assert samples["sft_hooks_running", ()] == samples["sft_hooks_waiting", ()] == 0
    files = {labels for name, labels in samples if name == "sft_files_total"}
    assert len(files) == sum(map(len, FILE_OUTCOMES.values()))
    of_accounts = {
        (name, dict(labels)["user"]): number for (name, labels), number in samples.items() if "account" in name
    }
    assert of_accounts == {
        ("sft_account_used_bytes", "alice"): 100,
        ("sft_account_used_bytes", "bob"): 100,
        ("sft_account_used_files", "alice"): 2,
        ("sft_account_used_files", "bob"): 2,
        ("sft_account_quota_bytes", "alice"): 1000,
        ("sft_account_quota_files", "bob"): 7,
    }


def test_disk_that_hangs_hides_nothing_else_and_is_read_once(disk: Storage) -> None:
    disk.goes_on.clear()
    before = threading.active_count()
    metrics = metrics_of(Activity(), disk, seconds=0.01)
    for _ in range(3):
        samples = samples_of(metrics.answer().text)
        assert ("sft_connections", ()) in samples and ("sft_storage_free_bytes", ()) not in samples
    assert threading.active_count() == before + 1
    disk.goes_on.set()
    wait_until(lambda: ("sft_storage_free_bytes", ()) in samples_of(metrics.answer().text))


# --- the program ------------------------------------------------------------------------------------------------------


def place_of(server: Server) -> int:
    """The port that it has said it answers at."""
    assert server.process is not None and server.process.stdout is not None
    while not (line := server.process.stdout.readline()).startswith("metrics at "):
        assert line
    return int(re.findall(r":(\d+)/metrics", line)[0])


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as asked:
        asked.request("GET", "/metrics")
        answer = asked.getresponse()
        assert answer.status == http.client.OK
        return samples_of(answer.read().decode())


def test_server_that_is_scraped_counts_what_a_client_does(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server("--metrics=127.0.0.1:0")
    port = place_of(server)
    assert scrape(port)["sft_files_total", (("direction", "received"), ("outcome", "stored"))] == 0
    client = Client(server.port, tmp_path / "client")
    assert client(make(tmp_path / "a"), make(tmp_path / "b", MIB), "box/").status == 0
    assert client("--get", "box/a", tmp_path / "back").status == 0
    wait_until(lambda: scrape(port)["sft_connections", ()] == 0)
    samples = scrape(port)
    assert samples["sft_logins_total", (("outcome", "accepted"),)] == 2
    assert samples["sft_files_total", (("direction", "received"), ("outcome", "stored"))] == 2
    assert samples["sft_files_total", (("direction", "sent"), ("outcome", "stored"))] == 1
    assert samples["sft_bytes_total", (("direction", "received"),)] > MIB
    assert samples["sft_connection_seconds_total", ()] > 0
    assert samples["sft_storage_free_bytes", ()] > 0
    assert samples["process_resident_memory_bytes", ()] > 0
    assert server.stop() == 0


def test_metrics_without_the_library_are_one_line_and_exit_2(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "prometheus_client" else find(name)
import server
print(server.main(["--metrics=127.0.0.1:0", f"--accounts={sys.argv[1]}/a", f"--storage={sys.argv[1]}/s",
    f"--server-log={sys.argv[1]}/log", "--config=/dev/null"]))
"""
    program = f"import os, sys; os.environ = {clean_environment()!r}; sys.stderr = sys.stdout\n{code}"
    said = run_python(program, tmp_path).splitlines()
    assert said == [
        "error: prometheus_client is not installed. Run: python -m pip install -r requirements.lock",
        "2",
    ]
    assert list(tmp_path.iterdir()) == []


# --- the dashboard ----------------------------------------------------------------------------------------------------


def test_dashboard_asks_for_numbers_and_labels_that_there_are(disk: Storage) -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    samples = samples_of(metrics_of(Activity(), disk).answer().text)
    labels = {name: {label for label, _ in found} for name, found in samples}
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [each["definition"] for each in board["templating"]["list"] if each["type"] == "query"]
    assert len(asked) > 10
    used = set()
    for expression in asked:
        names = set(re.findall(r"\b(?:sft|process)_\w+", expression))
        assert names and names <= set(labels), expression
        used |= names
        matched = re.findall(r"(\w+)=~?\"", expression) + re.findall(r"by \(([\w, ]+)\)", expression)
        for label in {each.strip() for group in matched for each in group.split(",")} - {"job", "instance"}:
            assert any(label in labels[name] for name in names), (expression, label)
        for label, value in re.findall(r'(direction|outcome)="(\w+)"', expression):
            assert any(dict(found).get(label) == value for name, found in samples if name in names), expression
    assert {name for name in labels if name.startswith("sft_")} == {name for name in used if name.startswith("sft_")}, (
        "each number of ours is shown"
    )


def test_dashboard_is_one_that_grafana_10_takes() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert board["schemaVersion"] == 38 and board["uid"] and "id" not in board
    panels = board["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    for each in panels:
        assert each["type"] in ("stat", "timeseries") and set(each["gridPos"]) == set("hwxy")
        assert each["gridPos"]["x"] + each["gridPos"]["w"] <= 24
        assert len({target["refId"] for target in each["targets"]}) == len(each["targets"])


def test_user_without_a_quota_is_no_label(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server("--metrics=127.0.0.1:0")
    assert Client(server.port, tmp_path / "client")(make(tmp_path / "a"), "a").status == 0
    samples = scrape(place_of(server))
    assert samples["sft_logins_total", (("outcome", "accepted"),)] == 1
    assert not [labels for _, labels in samples if USER in dict(labels).values()]
