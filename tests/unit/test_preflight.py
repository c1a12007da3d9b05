from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.preflight import Danger, DangerCode, Severity, find_bad_schedules, find_dangers
from tests.core_builders import ALL_RIGHTS, SETTINGS, make_entry, make_facts, make_observed

if TYPE_CHECKING:
    from reconciler.core.facts import Facts


def _danger(code: DangerCode, jobid: int = 7, name: str = "a", detail: str = "bob") -> Danger:
    return Danger(code=code, jobid=jobid, name=name, detail=detail)


def _codes(facts: Facts, *dangers: Danger) -> list[tuple[str, Severity]]:
    return [(finding.code, finding.severity) for finding in find_dangers(facts, dangers)]


def test_a_sound_server_has_no_findings() -> None:
    """Nothing is said where nothing is wrong."""
    assert _codes(make_facts()) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"in_recovery": True, "launcher_running": False}, [("standby", "error")]),
        ({"preloaded": False, "launcher_running": False}, [("not_preloaded", "error")]),
        ({"launcher_running": False}, [("launcher_down", "error")]),
        ({"launcher_age": 1.2}, [("launcher_restarting", "warning")]),
        ({"launcher_age": 5.0}, []),
        ({"launcher_age": None, "launcher_running": None, "preloaded": None}, []),
        ({"settings": {**SETTINGS, "launch_active_jobs": "off"}}, [("launch_off", "error")]),
        ({"settings": {**SETTINGS, "log_run": "off"}}, [("log_off", "warning")]),
        ({"settings": {}}, [("hidden_settings", "warning")]),
        ({"extension_default": "1.7"}, [("version_skew", "warning")]),
        ({"extension_default": ""}, []),
        (
            {
                "extension": "1.4-1",
                "extension_default": "1.4-1",
                "settings": {"use_background_workers": "on"},
            },
            [("serial_workers", "error")],
        ),
        (
            {"extension": "1.5", "extension_default": "1.5", "settings": SETTINGS},
            [("day_early", "error")],
        ),
        ({"extension": "", "rights": replace(ALL_RIGHTS, use_cron=False)}, []),
        ({"rights": replace(ALL_RIGHTS, use_cron=False)}, [("missing_rights", "error")]),
        ({"rights": replace(ALL_RIGHTS, schedule=False)}, [("missing_rights", "error")]),
        ({"rights": replace(ALL_RIGHTS, alter_job=False)}, [("missing_rights", "warning")]),
        ({"rights": replace(ALL_RIGHTS, schedule_in_database=False)}, [("missing_rights", "warning")]),
        ({"rights": replace(ALL_RIGHTS, sees_all=False)}, [("hidden_entries", "warning")]),
    ],
)
def test_each_danger_of_the_server_is_found(changed: dict[str, Any], expected: list[Any]) -> None:
    """One thing wrong, one finding; what cannot be seen is not guessed."""
    assert _codes(make_facts(**changed)) == expected


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        ("unknown_role", "error"),
        ("no_login", "error"),
        ("no_connect", "error"),
        ("unknown_database", "error"),
    ],
)
def test_each_dangerous_entry_is_named(code: DangerCode, severity: Severity) -> None:
    """The finding says which entry it is, by name and jobid, and what it is about."""
    (finding,) = find_dangers(make_facts(), [_danger(code)])
    assert (finding.code, finding.severity) == (code, severity)
    assert "entry a (jobid 7)" in finding.message
    assert "bob" in finding.message + finding.remedy


def test_an_entry_without_a_name_goes_by_its_jobid() -> None:
    """Two-argument schedule makes entries without names."""
    (finding,) = find_dangers(make_facts(), [_danger("unknown_role", name="")])
    assert finding.message.startswith("unnamed entry (jobid 7)")


@pytest.mark.parametrize("mode", ["off", "on", None])
def test_copying_to_the_client_is_deadly_without_background_workers(mode: str | None) -> None:
    """Mode libpq loops for ever; an unknown mode is taken for it; background workers are harmless."""
    settings = {**SETTINGS, "use_background_workers": mode} if mode else {"log_run": "on"}
    codes = _codes(
        make_facts(settings=settings), _danger("copy"), _danger("other_node", detail="localhost:1")
    )
    assert codes == ([] if mode == "on" else [("copy_loop", "error"), ("other_node", "warning")])


@pytest.mark.parametrize(
    ("extension", "newer", "severity"),
    [("1.4-1", {}, "warning"), ("1.6", {}, "error"), ("1.6", {"match_dom_and_dow": "off"}, "warning")],
)
def test_entries_of_superusers_crash_1_6_5_to_1_6_7_when_they_are_forbidden(
    extension: str, newer: dict[str, str], severity: Severity
) -> None:
    """Versions before and after only leave them out; 1.6.1 to 1.6.7 cannot be told apart."""
    settings = {**SETTINGS, **newer, "enable_superuser_jobs": "off"}
    if extension == "1.4-1":
        settings = {"enable_superuser_jobs": "off"}
    facts = make_facts(extension=extension, extension_default=extension, settings=settings)
    assert _codes(facts, _danger("superuser"), _danger("superuser", jobid=8)) == [
        ("superuser_entries", severity)
    ]
    assert _codes(facts) == []


def test_entries_of_superusers_are_no_danger_where_they_may_run() -> None:
    """The setting is on by default."""
    assert _codes(make_facts(), _danger("superuser")) == []


def test_missing_rights_come_with_their_grants() -> None:
    """An administrator can paste the remedy."""
    rights = replace(ALL_RIGHTS, schedule=False, alter_job=False, schedule_in_database=False)
    (finding,) = find_dangers(make_facts(rights), [])
    assert finding.remedy == (
        'as an administrator: GRANT EXECUTE ON FUNCTION cron.schedule(text, text, text) TO "deploy"; '
        'GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO "deploy"; '
        'GRANT EXECUTE ON FUNCTION cron.alter_job TO "deploy"'
    )


def test_errors_come_before_warnings_whatever_the_order() -> None:
    """Findings are sorted, so that output does not hang on the order of rows."""
    facts = make_facts(extension_default="1.7", launcher_running=False)
    dangers = [_danger("no_login", jobid=9), _danger("no_login", jobid=8)]
    found = find_dangers(facts, dangers)
    assert found == find_dangers(facts, dangers[::-1])
    assert [finding.severity for finding in found] == ["error", "error", "error", "warning"]


def test_schedules_that_are_misread_are_found_by_jobid() -> None:
    """Every visible entry is judged, also those of others; the right text is given where there is one."""
    entries = (
        make_entry("b", 2, schedule="0 0 * * * *"),
        make_entry("a", 1, schedule="nonsense"),
        make_entry("c", 3),
    )
    first, second = find_bad_schedules(make_observed(entries=entries))
    assert (first.code, first.severity) == ("misread_schedule", "warning")
    assert first.message.startswith("entry a (jobid 1): schedule 'nonsense'")
    assert first.remedy == "correct or unschedule it"
    assert second.remedy.startswith("write '")
