"""bindings.cron: what a schedule means.

The instants were computed by the Go package that Dapr's is a fork of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st
from meshnode_bindings_cron import Calendar, Every, Options, parse_schedule

from meshnode.errors import ConfigError
from meshnode.registry import load_options

# A schedule, a moment, and how many seconds after it the next ticks come.
TICKS = [
    ("TZ=Europe/Berlin 30 2 * * *", 1774500000, "75000 161400 330600 417000"),
    ("TZ=Europe/Berlin 30 2 * * *", 1792700000, "15400 101800 188200 191800"),
    ("TZ=America/New_York 30 1 * * *", 1793400000, "24600 111000 114600 201000"),
    ("TZ=America/New_York 0 */2 * * *", 1772930000, "1600 8800 16000 26800"),
    ("TZ=America/Sao_Paulo 0 0 * * *", 1541100000, "27600 114000 283200 369600"),
    ("TZ=America/Sao_Paulo @daily", 1541200000, "14000 183200 269600 356000"),
    ("TZ=Asia/Kolkata @daily", 1700000000, "73000 159400 245800 332200"),
    ("0 0 29 2 *", 1709300000, "126095200 252325600 378556000 504786400"),
    ("0 12 13 * fri", 1700000000, "222400 827200 1432000 2036800"),
    ("*/20 59 23 31 12 *", 1700000000, "4067140 4067160 4067180 35689540"),
    ("50,12/8 0 20 */9 *", 1517882494, "22111826 22112306 22112786 22113266 22113746 22114106"),
    (
        "TZ=America/Sao_Paulo 28-49/2 45 * * 8,5/2 3",
        1516076418,
        "9156310 9156312 9156314 9156316 9156318 9156320",
    ),
    ("TZ=America/New_York 58,49/5 * * * */4", 1559476305, "135 375 435 3435 3735 3975"),
    ("* * */7 * 3-4/1", 1859429601, "243999 244059 244119 244179 244239 244299"),
    (
        "CRON_TZ=Europe/Berlin 23 */2 21-31/3 6,11/5 *",
        1819899247,
        "6853733 6860933 6868133 6875333 6882533 6889733",
    ),
    (
        "CRON_TZ=Europe/Berlin 29,7/1 * */5 5-7/2 3,1/8",
        1763620942,
        "13965878 13965938 13965998 13966058 13966118 13966178",
    ),
    (
        "CRON_TZ=Europe/Berlin * * */8 * 4 *",
        1748943202,
        "26051198 26051199 26051200 26051201 26051202 26051203",
    ),
    ("* 6,7/7 0-13/3 * * *", 1837804444, "10316 10317 10318 10319 10320 10321"),
    ("33-59/1 * * * 6,1/3", 1601854185, "3795 3855 3915 3975 4035 4095"),
    (
        "CRON_TZ=Europe/Berlin 44-46/1 * */6 9,10/7 3,2/9",
        1599808002,
        "142638 142698 142758 146238 146298 146358",
    ),
    ("TZ=Asia/Kolkata * */3 18 * 4,6/1", 1722053099, "1 61 121 181 241 301"),
    ("9,47/2 13-14/3 14,6/7 1 3", 1647272577, "25565163 25567443 25567563 25567683 25567803 25567923"),
    (
        "TZ=America/New_York * 30,59/6 * 9,14/9 * 2-5/3",
        1742147623,
        "124577 124578 124579 124580 124581 124582",
    ),
    ("*/9 * 9-16/2 * 11 6,0/8", 1693287067, "5801333 5801342 5801351 5801360 5801369 5801378"),
    ("42 */7 * * *", 1889638214, "7906 18706 43906 69106 94306 105106"),
    ("40-51/2 22 * */7 0,0/5", 1812605667, "4554333 4554453 4554573 4554693 4554813 4554933"),
    ("CRON_TZ=Europe/Berlin 42 * * 12 * 5,6/2", 1559720385, "138057 138117 138177 138237 138297 138357"),
    ("*/6 * 2,15/7 23 * *", 1755641393, "273007 273013 273019 273025 273031 273037"),
    (
        "TZ=America/Sao_Paulo * * 4-15/3 * */6 *",
        1842254886,
        "3792714 3792715 3792716 3792717 3792718 3792719",
    ),
    (
        "TZ=America/New_York 50,1/2 22,9/8 */3 6 3,4/8",
        1611956903,
        "10595557 10595677 10595797 10595917 10596037 10596157",
    ),
    ("39-43/1 * 15 * */10 *", 1893143669, "366370 366371 366372 366373 366374 366430"),
    ("12,13/5 * * * */5", 1810802867, "55453 55513 55813 56113 56413 56713"),
    ("TZ=Asia/Kolkata * 23,16/2 * * *", 1605837081, "31119 31179 31239 31299 31359 31419"),
    ("* 26-57/3 */3 */9 2-3/1 *", 1581966351, "105609 105610 105611 105612 105613 105614"),
    ("TZ=America/New_York 26,3/5 */4 * * *", 1541323407, "153 273 573 873 1173 1473"),
    ("* */9 * 5-10/2 *", 1899545330, "4278670 4278730 4278790 4278850 4278910 4278970"),
    ("CRON_TZ=Europe/Berlin * * * */4 0,6/9", 1869780264, "2846136 2846196 2846256 2846316 2846376 2846436"),
    ("TZ=America/Sao_Paulo * 3 */10 * *", 1868905398, "725802 725862 725922 725982 726042 726102"),
    (
        "TZ=America/New_York 10,13/5 14-21/1 19 25,20/7 9 0-6/2",
        1800605837,
        "19321013 19321016 19321021 19321026 19321031 19321036",
    ),
    ("CRON_TZ=Europe/Berlin * * 20,26/7 2,4/2 6", 1771042001, "19 79 139 199 259 319"),
    ("TZ=America/Sao_Paulo 16 * */3 */7 3-12/1 3", 1718756626, "9390 9450 9510 9570 9630 9690"),
    ("* * * 12,9/2 1-5/3", 1679787295, "13998305 13998365 13998425 13998485 13998545 13998605"),
    (
        "TZ=Asia/Kolkata 39,5/7 20,45/5 */7 4,22/1 2,1/4 0-5/3",
        1606305655,
        "3307750 3307757 3307764 3307771 3307778 3307784",
    ),
    ("*/2 17 2,7/2 20 */3 *", 1503295262, "5170558 5170560 5170562 5170564 5170566 5170568"),
    ("* 11-23/1 13 1 */8", 1833810768, "28667232 28667292 28667352 28667412 28667472 28667532"),
    (
        "TZ=America/New_York */5 * 22 */9 2-11/2 1",
        1766905926,
        "3095274 3095279 3095284 3095289 3095294 3095299",
    ),
    ("CRON_TZ=Europe/Berlin * 9 */7 * *", 1725978340, "405260 405320 405380 405440 405500 405560"),
    ("TZ=America/New_York * * * 9-9/2 6", 1725417633, "263967 264027 264087 264147 264207 264267"),
    ("39 * 4-4/2 * 2-3/2", 1544789649, "303891 307491 311091 314691 318291 321891"),
    (
        "TZ=America/New_York 22-38/2 16-23/1 */4 */9 *",
        1707913900,
        "19900220 19900340 19900460 19900580 19900700 19900820",
    ),
    ("37 * 12,8/4 16 * 5", 1837001896, "495741 495801 495861 495921 495981 496041"),
    ("TZ=America/Sao_Paulo */1 */5 17,2/3 * *", 1760877381, "51819 51879 51939 51999 52059 52119"),
    ("TZ=Asia/Kolkata */8 */6 3 * 1-12/1 *", 1626918162, "71238 71246 71254 71262 71270 71278"),
    ("TZ=Asia/Kolkata * 29 */6 19-24/2 */2 *", 1621902905, "4731835 4731836 4731837 4731838 4731839 4731840"),
    ("TZ=America/Sao_Paulo 41 35,35/5 * 31 6-8/3 *", 1642644842, "-"),
]


def ticks(schedule: str, start: float, count: int) -> list[float | None]:
    parsed = parse_schedule(schedule)
    assert isinstance(parsed, Calendar)
    found: list[float | None] = []
    now: float | None = start
    while now is not None and len(found) < count:
        now = parsed.next_after(now, UTC)
        found.append(now)
    return found


@pytest.mark.parametrize(("schedule", "start", "expected"), TICKS)
def test_ticks_are_those_of_dapr(schedule: str, start: int, expected: str) -> None:
    distances = expected.split()
    found = ticks(schedule, start, len(distances))
    assert ["-" if one is None else str(int(one - start)) for one in found] == distances


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/15 * * * * *",
        "? ? ? ? ?",
        "* * * * ? *",
        "* * * jan mon",
        "* * * JAN-Mar MON-fri",
        "* * * * sun-sat",
        "+5 * * * *",
        "05 * * * *",
        "1,,2 * * * *",
        "?/5 * * * *",
        "5/15 * * * *",
        "1-30/7 * * * *",
        "*/100 * * * *",
        "0 0 30 2 *",
        " * * * * *",
        "TZ= * * * * *",
        "TZ=Local * * * * *",
        "TZ=Europe/Berlin 0 30 * * * *",
        "CRON_TZ=America/New_York   @every 1m",
        "CRON_TZ=America/New_York @daily",
    ],
)
def test_accepted_as_by_dapr(text: str) -> None:
    parse_schedule(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields, not 5, or 6 with seconds"),
        ("* * * * * * *", "has 7 fields"),
        ("@reboot", "is none of @every DURATION, @annually, "),
        ("@Hourly", "is none of"),
        (" @hourly", "has 1 fields"),
        ("@every", "is none of"),
        ("@every ", "is no duration"),
        ("@every 5", "is no duration"),
        ("@every  1s", "is no duration"),
        ("TZ=UTC", "is not followed by a schedule"),
        ("TZ=Nowhere/Land * * * * *", "there is no time zone 'Nowhere/Land'"),
        ("TZ=Europe * * * * *", "there is no time zone 'Europe'"),
        ("TZ=../etc/passwd * * * * *", "there is no time zone"),
        (" TZ=UTC * * * * *", "second: 'TZ=UTC' is no number"),
        ("60 * * * *", "minute: 60 is not within 0 to 59"),
        ("* 24 * * *", "hour: 24 is not within 0 to 23"),
        ("* * 0 * *", "day of the month: 0 is not within 1 to 31"),
        ("* * * 13 *", "month: 13 is not within 1 to 12"),
        ("* * * * 7", "day of the week: 7 is not within 0 to 6; Sunday is 0"),
        ("* * * foo *", "month: 'foo' is no number and no name"),
        ("5-1 * * * *", "'5-1' ends before it begins"),
        ("1-2-3 * * * *", "'2-3' is no number"),
        ("1/2/3 * * * *", "'2/3' is no step"),
        ("*/0 * * * *", "'0' is no step"),
        ("*/-1 * * * *", "'-1' is no step"),
        ("- * * * *", "'' is no number"),
        ("1- * * * *", "'' is no number"),
        ("1.5 * * * *", "'1.5' is no number"),
        ("0x5 * * * *", "'0x5' is no number"),
        ("1_0 * * * *", "'1_0' is no number"),
        ("٣ * * * *", "is no number"),
        ("L * * * *", "'L' is no number"),
        ("* * * * 5#2", "'5#2' is no number"),
        # These two are taken by Dapr, which never fires the first and ignores what follows the star.
        (", * * * *", "names no value"),
        ("*-5 * * * *", "'*' is no number"),
    ],
)
def test_refused_with_a_sentence(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_options(Options, {"schedule": text})
    (problem,) = caught.value.problems
    assert complaint in problem.message
    assert problem.field == "spec.metadata.schedule"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("0.0019s", 0.001),
        ("1us", 0.001),
        ("0", 0.001),
        ("-1s", 0.001),
        ("+2m", 120),
        (".5s", 0.5),
    ],
)
def test_every(text: str, seconds: float) -> None:
    assert parse_schedule(f"@every {text}") == Every(seconds)


def test_the_zone_of_the_machine_is_used_where_none_is_given() -> None:
    parsed = parse_schedule("0 12 * * *")
    assert isinstance(parsed, Calendar)
    start = datetime(2026, 7, 1, tzinfo=UTC).timestamp()
    at = parsed.next_after(start, ZoneInfo("Europe/Berlin"))
    assert at == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp()


def test_a_date_that_never_comes() -> None:
    assert ticks("0 0 30 2 *", 1_700_000_000, 1) == [None]


def test_the_end_of_time() -> None:
    late = datetime(9999, 12, 31, 12, tzinfo=UTC).timestamp()
    assert ticks("0 0 1 1 *", late, 1) == [None]


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    # croniter takes 0-0 in the day of the week for the whole week.
    spans = (
        st.lists(numbers, min_size=2, max_size=2, unique=True)
        .map(sorted)
        .map(lambda pair: f"{pair[0]}-{pair[1]}")
    )
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, 9)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    parts = st.one_of(numbers.map(str), spans, steps)
    return st.one_of(st.just("*"), st.lists(parts, min_size=1, max_size=3).map(",".join))


@st.composite
def schedules(draw: st.DrawFn) -> str:
    """At most one of the two day fields restricted: croniter joins them in another way than Dapr."""
    bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    texts = [draw(fields(low, high)) for low, high in bounds]
    texts[draw(st.sampled_from([3, 5]))] = "*"
    return " ".join(texts)


@given(schedules(), st.integers(946_684_800, 4_000_000_000))
def test_agrees_with_croniter(schedule: str, start: int) -> None:
    oracle = croniter(schedule, start, second_at_beginning=True, max_years_between_matches=9)
    found = ticks(schedule, start, 3)
    if found[0] is None:
        return
    assert found == [oracle.get_next(float) for _ in found]
