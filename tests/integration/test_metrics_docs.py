"""The documents about metrics tell the truth: table, board and alert rules against a real exposition."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.api.metric_table import METRICS
from reconciler.core.durations import parse_duration
from reconciler.runtime.spec_files import WatchedSpecFiles
from tests import queued
from tests.declared import Site, channel, job, queue
from tests.promql import read_expression
from tests.runs import call
from tests.scraped import Scraper
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_server

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "docs" / "grafana" / "reconciler.json").read_text())
RULES = yaml.safe_load((ROOT / "docs" / "alert-rules.yaml").read_text())["groups"][0]["rules"]
RULE_TESTS = yaml.safe_load((ROOT / "tests" / "data" / "alert-rules.test.yaml").read_text())["tests"]
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.+) \|$", re.MULTILINE)
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus gives to whatever it scrapes."""


@pytest.fixture
def told(site: Site, tmp_path: Path) -> dict[str, set[str]]:
    """Names of all samples of a service in which everything happens, with the labels that each has."""
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text("jobs:\n  a: {schedule: '0 0 29 2 *', sql: SELECT 1}\n")
    (tmp_path / "reconciler.yaml").write_text(f"owner: shop\ntargets:\n  test: {{dsn: '{site.dsn}'}}\n")
    site.apply(job("a"), queue("q"), channel("ops"))
    site.run("SELECT cron.schedule('t', '* * * * *', 'CALL reconciler.tick()')")
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, start_time)"
        " SELECT jobid, 100000, database, username, command, 'succeeded', now() FROM cron.job"
        " WHERE jobname = 't'"
    )
    queued.enqueue(queued.connect(site), "q")
    files = WatchedSpecFiles(tmp_path / "reconciler.yaml", environment={})
    with serve(site, files=files) as served:
        scraper = Scraper(served)
        scraper.scrape()
        scraper.database.drift.wait(20)
        assert call(site, "a") is None
        site.run(
            "INSERT INTO reconciler.cron_execution_log (job_name, definition_id, role, backend_pid)"
            " SELECT name, id, 'anna', 0 FROM reconciler.definitions WHERE name = 'a'"
        )
        scraper.scrape(after=10)
        text = served.get("/metrics").text
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def list_samples(name: str, kind: str) -> set[str]:
    """List the names of the samples that a metric has."""
    return {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}


def test_the_table_names_every_metric_with_its_labels(told: dict[str, set[str]]) -> None:
    """What the page lists is what is told, both ways, with the same kind, labels and text."""
    rows = ROW.findall((ROOT / "docs" / "metrics.md").read_text())
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    assert listed == {name: (one.kind, one.labels, one.text) for name, one in METRICS.items()}
    expected: dict[str, set[str]] = {}
    for name, metric in METRICS.items():
        for sample in list_samples(name, metric.kind):
            expected[sample] = {*metric.labels, *({"le"} if sample.endswith("_bucket") else ())}
    ours = {
        name: labels
        for name, labels in told.items()
        if name.startswith("reconciler_") and not name.endswith("_created")
    }
    assert ours == expected


def check_expression(text: str, told: dict[str, set[str]]) -> None:
    """See that an expression asks for nothing that is not told."""
    wanted = read_expression(text)
    assert wanted.labels, text
    everything: set[str] = set()
    for name, labels in wanted.labels.items():
        if name == "up":
            has = OF_PROMETHEUS
        else:
            assert name in told, f"{name} of {text}"
            has = told[name] | OF_PROMETHEUS
        assert labels <= has, f"{labels - has} of {text}"
        everything |= has
    assert wanted.grouped <= everything, text


def list_expressions() -> Iterator[str]:
    """List what the board asks for."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for annotation in BOARD["annotations"]["list"]:
        yield annotation["expr"]


def test_the_board_asks_for_nothing_that_is_not_told(told: dict[str, set[str]]) -> None:
    """Each panel's metrics and labels are there, and those of the variables above them."""
    expressions = list(list_expressions())
    assert len(expressions) > 40
    for text in expressions:
        check_expression(text, told)
    variables = [one for one in BOARD["templating"]["list"] if one["type"] == "query"]
    for one in variables:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["definition"])
        assert found is not None
        assert found[2] in told[found[1]] | OF_PROMETHEUS
    names = {one["name"] for one in BOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$(\w+)", json.dumps(list(expressions)))) <= names


def test_the_board_shows_nearly_everything() -> None:
    """A metric that nobody looks at is one too many: what the board leaves out is named here."""
    shown = " ".join((*list_expressions(), *(rule["expr"] for rule in RULES)))
    left = {name for name in METRICS if name not in shown}
    assert left == {
        "reconciler_build_info",
        "reconciler_deliveries_waiting",
        "reconciler_job_last_run_timestamp_seconds",
        "reconciler_job_missed_runs_total",
        "reconciler_job_paused",
        "reconciler_oldest_xmin_age",
        "reconciler_plan_timestamp_seconds",
        "reconciler_schema_version",
        "reconciler_starts_waiting",
    }


def test_its_panels_have_ids_and_places_of_their_own() -> None:
    """Grafana wants an id each, and no panel lies on another."""
    panels: list[dict[str, Any]] = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_rules_ask_for_nothing_that_is_not_told(told: dict[str, set[str]]) -> None:
    """Each rule's metrics and labels are there, and it says what happened and what to do."""
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        check_expression(rule["expr"], told)
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "remedy"}
        if "for" in rule:
            parse_duration(rule["for"])
        kept = read_expression(rule["expr"]).grouped | OF_PROMETHEUS
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= kept, rule["alert"]


def test_each_rule_has_a_test_for_promtool(told: dict[str, set[str]]) -> None:
    """`promtool test rules` fires every rule, with series that are told and words that the rules have."""
    fired = {
        one["alertname"] for each in RULE_TESTS for one in each["alert_rule_test"] if one.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in RULES}
    for each in RULE_TESTS:
        for series in each["input_series"]:
            check_expression(series["series"], told)


@pytest.mark.parametrize(
    ("text", "labels", "grouped"),
    [
        ("up == 0", {"up": set()}, set()),
        (
            'sum by (a, b) (rate(x_total{c=~"d,{e}", f!="g"}[5m])) / on (h) y > 1e3 and z unless w offset 5m',
            {"x_total": {"c", "f"}, "y": set(), "z": set(), "w": set()},
            {"a", "b", "h"},
        ),
        ("topk(3, changes(q[1m:]) * 1000)", {"q": set()}, set()),
    ],
)
def test_expressions_are_read_right(text: str, labels: dict[str, set[str]], grouped: set[str]) -> None:
    """What checks the documents sees what is in an expression."""
    found = read_expression(text)
    assert (found.labels, found.grouped) == (labels, grouped)
