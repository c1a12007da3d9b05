from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.facts import find_lowest_version
from tests.core_builders import make_facts


@pytest.mark.parametrize(
    ("extension", "settings", "lowest"),
    [
        ("", {}, (0, 0, 0)),
        ("1.3", {}, (1, 3, 0)),
        ("1.4-1", {}, (1, 4, 0)),
        ("1.5", {"timezone": "GMT"}, (1, 5, 0)),
        ("1.5", {"timezone": "GMT", "launch_active_jobs": "on"}, (1, 6, 0)),
        ("1.6", {}, (1, 6, 1)),
        ("1.6", {"match_dom_and_dow": "off"}, (1, 6, 8)),
        ("1.4-1", {"timezone": "GMT"}, (1, 5, 0)),
        ("2.0", {"timezone": "GMT"}, (2, 0, 0)),
    ],
)
def test_the_lowest_version_comes_from_the_extension_and_the_settings(
    extension: str, settings: dict[str, str], lowest: tuple[int, int, int]
) -> None:
    """The extension's version moves late; a setting proves the binary that brought it."""
    assert find_lowest_version(extension, settings) == lowest


def test_the_grammar_follows_the_version() -> None:
    """A server's dialect is that of the lowest version it can be."""
    facts = make_facts(extension="1.4-1", settings={})
    assert facts.pg_cron == (1, 4, 0)
    assert not facts.dialect.seconds
    assert make_facts().dialect.seconds


def test_the_zone_is_gmt_before_1_5() -> None:
    """pg_cron 1.4 shows cron.timezone as a placeholder and does not read it."""
    oslo = {"timezone": "Europe/Oslo"}
    assert make_facts(settings=oslo).timezone == "Europe/Oslo"
    assert make_facts(settings={}).timezone == "GMT"
    assert make_facts(extension="", settings=oslo).timezone == "GMT"


@pytest.mark.parametrize(("value", "known"), [("on", True), ("off", False), (None, None)])
def test_the_mode_is_known_where_the_setting_is_seen(value: str | None, known: bool | None) -> None:
    """A role that cannot see the setting knows neither mode."""
    settings = {} if value is None else {"use_background_workers": value}
    assert make_facts(settings=settings).background_workers is known


@pytest.mark.parametrize(
    "changed",
    [
        {"database": "other"},
        {"role": "other"},
        {"extension": "1.4-1", "settings": {}},
        {"settings": {"timezone": "Europe/Oslo"}},
        {"settings": {"use_background_workers": "on"}},
        {"extensions": frozenset({"http"})},
    ],
)
def test_a_desired_state_holds_for_the_same_server_alone(changed: dict[str, Any]) -> None:
    """Whatever decides what an entry looks like tells two servers apart; the age of the launcher does not."""
    assert not make_facts().same_server(make_facts(**changed))
    assert make_facts().same_server(make_facts(launcher_age=1.0))


@pytest.mark.parametrize(
    ("settings", "extension", "known", "taken"),
    [
        ({"timezone": "Europe/Oslo"}, "1.6", "Europe/Oslo", "Europe/Oslo"),
        ({"use_background_workers": "off"}, "1.4-1", "GMT", "GMT"),
        ({}, "1.6", None, "GMT"),
    ],
)
def test_a_zone_that_cannot_be_seen_is_not_known(
    settings: dict[str, str], extension: str, known: str | None, taken: str
) -> None:
    """Schedules are read as GMT then, but nobody else's better knowledge is written over."""
    facts = make_facts(settings=settings, extension=extension)
    assert (facts.known_timezone, facts.timezone) == (known, taken)
