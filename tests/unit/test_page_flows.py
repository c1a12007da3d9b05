"""The dashboard's pictures of queues: what they show, and what they say to those who do not see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.api.pages.flow_charts import describe_flow, draw_flow
from reconciler.api.pages.queue_pages import name_obstacle
from reconciler.database.throughput import Span

AT = datetime(2026, 11, 21, 8, tzinfo=UTC)


def spans(*counts: tuple[int | None, int | None]) -> list[Span]:
    """Make minutes, each with what was finished and failed."""
    return [
        Span(at=AT + timedelta(minutes=number), finished=finished, failed=failed)
        for number, (finished, failed) in enumerate(counts)
    ]


def test_a_flow_says_in_words_what_it_shows() -> None:
    """How many were finished and failed, the most of a span, and how many spans nobody counted."""
    assert describe_flow(spans((1200, 3), (40, 0)), "minute") == (
        "Jobs by minute, the last 2: 1,240 finished, 3 failed; at most 1,203 in one"
    )
    assert describe_flow(spans((None, None), (2, 0)), "hour") == (
        "Jobs by hour, the last 2: 2 finished, 0 failed; at most 2 in one; 1 of them not counted"
    )


def test_a_flow_puts_what_failed_on_top_with_a_gap() -> None:
    """Its scale ends at a round number; spans without jobs, and those that nobody counted, have no bar."""
    picture = draw_flow(spans((30, 10), (0, 0), (None, None), (0, 50)), "minute")
    assert "<span>50</span><span></span><span>0</span>" in picture
    assert picture.count('class="good"') == 1
    assert picture.count('class="bad"') == 2
    assert "<title>2026-11-21 08:00:00Z · 30 finished · 10 failed</title>" in picture
    # 30 of 50 are 55.2 of 92 places above the ground at 96; what failed begins 2 above that.
    assert 'y="40.8" width="19.50%" height="55.2"' in picture
    assert 'y="22.4" width="19.50%" height="16.4"' in picture


def test_a_flow_shows_a_single_job() -> None:
    """However many there were at other times; and nothing at all as a flat line with a scale."""
    assert 'height="1.5"' in draw_flow(spans((100_000, 0), (1, 0)), "hour")
    assert "<span>100,000</span>" in draw_flow(spans((100_000, 0)), "hour")
    assert "<rect" not in draw_flow(spans((0, 0)), "hour")


def test_what_holds_a_queue_up_is_named_for_people() -> None:
    """What the view names after a setting is said in words; the rest it says itself."""
    assert name_obstacle("rate") == "as many began as may for now"
    assert name_obstacle("job 12 (retry)") == "job 12 (retry)"
