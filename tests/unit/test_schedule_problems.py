"""What people are told about a schedule that pg_cron refuses or misreads."""

from __future__ import annotations

import re

import pytest

from reconciler.core.schedules import dialect_for, find_problem


@pytest.mark.parametrize(
    ("text", "reason", "suggestion"),
    [
        # words
        ("@Daily", "small letters, @daily", "@daily"),
        ("@HOURLY", "small letters", "@hourly"),
        ("@daily foo", "ignores the text after it", "@daily"),
        ("@ daily", "has no word @;", "@daily"),
        ("@fortnightly", "has no word @fortnightly; it has @daily, ", ""),
        ("@boot", "no word @boot", "@reboot"),
        ("@yearly", "1.6.0 and later take @yearly and never run it", "0 0 1 1 *"),
        ("@Annually", "small letters", "0 0 1 1 *"),
        ("@ yearly", "no word", "0 0 1 1 *"),
        # intervals
        ("60 seconds", "1 to 59 seconds", "* * * * *"),
        ("120 seconds", "1 to 59 seconds", "*/2 * * * *"),
        ("90 seconds", "1 to 59 seconds", ""),
        ("0 seconds", "1 to 59 seconds", ""),
        ("4294967297 seconds", "1 to 59 seconds", ""),
        ("-4294967295 seconds", "1 to 59 seconds", ""),
        ("+5 seconds", "plain number", "5 seconds"),
        ("1 secs", "plain number", "1 second"),
        ("30s", "plain number", "30 seconds"),
        ("1 minute", "intervals only in seconds", "* * * * *"),
        ("5m", "intervals only in seconds", "*/5 * * * *"),
        ("every 5 minutes", "intervals only in seconds", "*/5 * * * *"),
        ("@every 5m", "intervals only in seconds", "*/5 * * * *"),
        ("every hour", "intervals only in seconds", "0 * * * *"),
        ("7 minutes", "intervals only in seconds", ""),
        ("90m", "intervals only in seconds", ""),
        ("1440 min", "intervals only in seconds", "0 0 * * *"),
        ("6h", "intervals only in seconds", "0 */6 * * *"),
        ("5 hours", "intervals only in seconds", ""),
        ("7 days", "intervals only in seconds", "0 0 * * 0"),
        ("3 days", "intervals only in seconds", ""),
        ("1 year", "intervals only in seconds", "0 0 1 1 *"),
        ("weekly", "five fields", "0 0 * * 0"),
        ("02:30", "is a time", "30 2 * * *"),
        ("now", "only repeated runs", ""),
        # the whole text
        ("", "is empty", ""),
        (" \n\t", "is empty", ""),
        ("# c", "only a comment", ""),
        ("# c\n* * * * *", "begins with a comment", "* * * * *"),
        ("* * * * *\n", "line break", "* * * * *"),
        ("5\n* * * *", "line break", "5 * * * *"),
        ("\n0 8 * *\n1", "line break", "0 8 * * 1"),
        ("5\r* * * *", "line break", "5 * * * *"),
        (" * * * * *", "blanks before or after", "* * * * *"),
        ("@daily ", "blanks before or after", "@daily"),
        ("30 seconds ", "blanks before or after", "30 seconds"),
        ("0\u00a08 * * *", r"U\+00A0 \(NO-BREAK SPACE\)", "0 8 * * *"),
        ("0 9\u201317 * * *", "EN DASH", "0 9-17 * * *"),
        ("5\u00e9 * * * *", "plain ASCII", ""),
        ("* * * * *\0", r"U\+0000 \(a control character\)", ""),
        ("* * * * \ud800", "an unnamed character", ""),
        ("* * * * *" + " " * 991, "longer than the 999 bytes", ""),
        ("* * * * *" + "\u00e9" * 496, "longer than the 999 bytes", ""),
        # the number of fields
        ("* * * *", "has 4 fields, and a schedule is five fields", ""),
        ("5", "has 1 field, ", ""),
        ("* * * * * *", "has 6 fields.*ignores all after the fifth", "* * * * *"),
        ("* * * * * 2027", "ignores all after the fifth", "* * * * *"),
        ("0 8 * * 1 2027-2030", "ignores all after the fifth", "0 8 * * 1"),
        ("0 0 12 * * ?", "ignores all after the fifth", "0 12 * * *"),
        ("0 0 12 ? * MON-FRI *", "has 7 fields", "0 12 * * MON-FRI"),
        ("*/10 * * * * *", "ignores all after the fifth", "10 seconds"),
        ("15 0 0 * * 1", "ignores all after the fifth", ""),
        ("0 0 * * 1 foo", "ignores all after the fifth", ""),
        ("0 0 1 1 1 1 1 1", "has 8 fields", ""),
        ("1, 2 * * * *", "no blanks may stand around a comma", "1,2 * * * *"),
        ("0 9 - 17 * * *", "no blanks may stand around", "0 9-17 * * *"),
        # values
        ("60 * * * *", "minute '60': 60 is outside of 0-59", ""),
        ("4294967296 * * * *", "outside of 0-59", ""),
        ("0 24 * * *", "hour '24': 24 is outside of 0-23", "0 0 * * *"),
        ("0 0 0 * *", "day of month '0'", ""),
        ("0 0 * * 8", "day of week '8'", ""),
        ("H * * * *", "`H` is no number; there are no hashed values", ""),
        ("mon * * * *", "`mon` is no number$", ""),
        ("0 0 * * Sunday", r"names have three letters \(sun to sat\)", "0 0 * * sun"),
        ("0 0 * * Mondays", "three letters", "0 0 * * mon"),
        ("0 0 * * Monday-Friday", "three letters", "0 0 * * mon-fri"),
        ("0 0 * * Friday-Monday", "three letters", "0 0 * * fri-sat,sun-mon"),
        ("0 0 1 january,Sept *", r"\(jan to dec\)", "0 0 1 jan,sep *"),
        ("0 0 1 mo *", "`mo` is not known", ""),
        ("0 0 L * *", "is written `\\$`", "0 0 $ * *"),
        ("0 0 15,L * *", "is written `\\$`, alone", ""),
        ("0 0 15,$ * *", "stands alone", ""),
        ("$ * * * *", "stands alone", ""),
        ("0 0 ? * mon", "any value is `\\*`", "0 0 * * mon"),
        # steps
        ("1/20 * * * *", "needs a range before it", "1-59/20 * * * *"),
        ("0/15 * * * *", "needs a range before it", "*/15 * * * *"),
        ("0 0 * * 1/2", "needs a range before it", "0 0 * * 1-6/2"),
        ("*/0 * * * *", "at least 1", ""),
        ("*/60 * * * *", "step 60 is larger than 59", "0 * * * *"),
        ("*/120 * * * *", "step 120 is larger than 59", "0 */2 * * *"),
        ("*/120 8 * * *", "step 120 is larger than 59", ""),
        ("*/100 * * * *", "step 100 is larger than 59", ""),
        ("0 */24 * * *", "step 24 is larger than 23", "0 0 * * *"),
        ("0 0 */32 * *", "larger than 31", ""),
        ("0 0 * * */8", "larger than 7", ""),
        # text that is skipped
        ("0 0 * * 1#2", "skips `#2`: there are no nth weekdays", ""),
        ("0 0 * * mon#2", "reads `mon` at the most", ""),
        ("5 8 * * mon#2", 'no nth weekdays; a job can have `monthly: {day: second mon, at: "08:05"}` in', ""),
        ("5 8 ? * 7#5", "`monthly: {day: fifth sun, ", ""),
        ("5 8 * * 5L", '`5L` is not known, .*; a job can have `monthly: {day: last fri, at: "08:05"}`', ""),
        ("5 8 * * FRIL", "`monthly: {day: last fri, ", ""),
        ("*/5 8 * * mon#2", "there are no nth weekdays$", ""),
        ("5 8 * 1 mon#2", "there are no nth weekdays$", ""),
        ("5 8 1 * mon#2", "there are no nth weekdays$", ""),
        ("5 25 * * mon#2", "25 is outside of 0-23$", ""),
        ("5 8 * * mon#6", "there are no nth weekdays$", ""),
        ("5 8 * * 8L", "`8L` cannot be read$", ""),
        ("5~30 * * * *", "there are no random values", ""),
        ("5.5 * * * *", "skips `.5`", ""),
        ("1-5-9 * * * *", "reads `1-5` at the most and skips `-9`", ""),
        ("1-10/2/3 * * * *", "skips `/3`", ""),
        ("*-5 * * * *", "reads `\\*` at the most and skips `-5`", ""),
        ("*abc * * * *", "skips `abc`", ""),
        ("5x * * * *", "`5x` cannot be read", ""),
        ("5- * * * *", "`5-` cannot be read", ""),
        ("*/ * * * *", "`\\*/` cannot be read", ""),
        ("~ * * * *", "`~` cannot be read", ""),
        ("1,,2 * * * *", "element of the list is missing", ""),
        # ranges that run backwards
        ("0 0 * * sat-sun", "sat-sun runs backwards", "0 0 * * sat,sun"),
        ("0 0 * * fri-mon", "fri-mon runs backwards", "0 0 * * fri-sat,sun-mon"),
        ("0 0 * * mon-sun", "runs backwards", "0 0 * * mon-sat,sun"),
        ("0 0 * * 6-0", "runs backwards", "0 0 * * 6,0"),
        ("0 0 * * 5-1", "runs backwards", "0 0 * * 5-6,0-1"),
        ("0 0 * * 7-2", "runs backwards", "0 0 * * 0-2"),
        ("0 22-2 * * *", "runs backwards", "0 22-23,0-2 * * *"),
        ("0 22-2/2 * * *", "runs backwards", "0 22,0,2 * * *"),
        ("0 0 1 nov-feb *", "runs backwards", "0 0 1 nov-dec,jan-feb *"),
        # dates
        ("0 0 31 2 *", "'31' never comes in month '2'", "0 0 $ 2 *"),
        ("0 0 30,31 feb *", "never comes", ""),
        ("0 0 31 4,6,9,11 *", "never comes", "0 0 $ 4,6,9,11 *"),
        ("0 0 30 2 1", "never comes", "0 0 $ 2 1"),
        ("0 0 */31 2 1", "needs both.*years pass", ""),
        ("0 0 29 2 */7", "needs both", ""),
        ("0 0 */7 2 1", "needs both", ""),
    ],
)
def test_problems_come_with_the_right_spelling(text: str, reason: str, suggestion: str) -> None:
    """What is refused or misread comes with its reason and, where there is one, the right spelling."""
    problem = find_problem(text, dialect_for((1, 6, 5)))
    assert problem is not None
    assert re.search(reason, problem.reason)
    assert problem.suggestion == suggestion


@pytest.mark.parametrize(
    ("text", "reason", "suggestion"),
    [
        ("30 seconds", "seconds needs pg_cron 1.5 or later, this target has 1.4.2", "* * * * *"),
        ("0 0 $ * *", "last day of the month needs pg_cron 1.6 or later, this target has 1.4.2", ""),
        ("0 0 L * *", "last day of the month needs pg_cron 1.6 or later, this target has 1.4.2", ""),
        ("5 8 L * *", '; a job can have `monthly: {day: last, at: "08:05"}` instead', ""),
        ("0 0 31 2 *", "never comes", ""),
        ("*/10 * * * * *", "ignores all after the fifth", "* * * * *"),
    ],
)
def test_what_the_version_lacks_is_named(text: str, reason: str, suggestion: str) -> None:
    """A form that the target is too old for says which version has it, and is never suggested."""
    problem = find_problem(text, dialect_for((1, 4, 2)))
    assert problem is not None
    assert reason in problem.reason
    assert problem.suggestion == suggestion
