"""Settings: flag > environment > file > default, durations, and errors of one line that name."""

import math
from pathlib import Path
from typing import Any

import pytest

from taskdist.limits import SECOND_US
from taskdist.settings import AgentSettings, DistributorSettings, SettingsError, parse_duration_us


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a file of settings is written."""
    return tmp_path / "taskdist.toml"


def error_of(
    flags: dict[str, Any], environ: dict[str, str] | None = None, config: Path | None = None
) -> str:
    """What is said of bad settings of a distributor; one line."""
    with pytest.raises(SettingsError) as raised:
        DistributorSettings.load(flags, environ or {}, config)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- where they come from ---------------------------------------------------------------------


def test_a_flag_wins_over_environment_over_file_over_default(file: Path) -> None:
    file.write_text('lease = "3s"')
    steps: list[tuple[dict[str, Any], dict[str, str], Path | None]] = [
        ({"lease": "1s"}, {"TASKDIST_LEASE": "2s"}, file),
        ({"lease": None}, {"TASKDIST_LEASE": "2s"}, file),
        ({}, {}, file),
        ({}, {}, None),
    ]
    leases = [DistributorSettings.load(*step).lease_us / SECOND_US for step in steps]
    assert leases == [1, 2, 3, 30]


def test_each_setting_is_found_where_it_is_set(file: Path) -> None:
    file.write_text('tiers = ["gold", "silver"]\nlease = "1m"\nmax_lost = 5\n')
    settings = DistributorSettings.load(
        {"listen": "[::1]:0", "insecure": None},
        {"TASKDIST_STORE": "memory:", "TASKDIST_INSECURE": "1", "TASKDIST_DRAIN": "0"},
        file,
    )
    assert settings == DistributorSettings(
        listen="[::1]:0",
        insecure=True,
        store="memory:",
        tiers=("gold", "silver"),
        lease_us=60 * SECOND_US,
        max_lost=5,
        drain_us=0,
    )


def test_an_empty_variable_is_an_unset_one() -> None:
    assert DistributorSettings.load({}, {"TASKDIST_LEASE": ""}) == DistributorSettings()


def test_lists_are_text_with_commas() -> None:
    agent = AgentSettings.load({"queues": "gpu, cpu"}, {"TASKDIST_SLOTS": "4"})
    assert (agent.queues, agent.slots) == (("gpu", "cpu"), 4)
    assert DistributorSettings.load({"tiers": "a,b ,c"}, {}).tiers == ("a", "b", "c")


def test_variables_of_the_other_program_do_no_harm() -> None:
    environ = {"TASKDIST_SERVER": "here:1", "TASKDIST_LEASE": "5s", "TASKDIST_SLOTS": "2"}
    assert DistributorSettings.load({}, environ).lease_us == 5 * SECOND_US
    assert AgentSettings.load({}, environ).slots == 2


def test_every_default_is_allowed() -> None:
    for kind in (DistributorSettings, AgentSettings):
        assert kind.model_validate(kind().model_dump()) == kind()


# --- durations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        ("30", 30),
        (" 1.5 ", 1.5),
        ("0", 0),
        (1e-5, 1e-5),
        (90, 90),
    ],
)
def test_a_duration(text: str | float, seconds: float) -> None:
    assert parse_duration_us(text) == seconds * SECOND_US


@pytest.mark.parametrize("number", [-1, -0.5, math.nan, math.inf])
def test_a_number_that_is_no_duration(number: float) -> None:
    with pytest.raises(ValueError, match="is not a duration: seconds from 0 on"):
        parse_duration_us(number)


@pytest.mark.parametrize(
    "text", ["", "soon", "s", "5 s 5", "-5s", "+5s", "-1", "1e3", "nan", "inf", "9" * 400 + "h"]
)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write 90s, 15m, 2h, or bare seconds"):
        parse_duration_us(text)


@pytest.mark.parametrize(
    ("said", "seconds"), [("30", 30), ("2.5", 2.5), ('"30"', 30), ('"1m"', 60)]
)
def test_a_bare_number_in_a_file_is_seconds_too(said: str, seconds: float, file: Path) -> None:
    file.write_text(f"lease = {said}")
    assert DistributorSettings.load({}, {}, file).lease_us == seconds * SECOND_US


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"lease": "soon"}, "--lease: 'soon' is not a duration"),
        ({"lease": "100ms"}, "--lease: allowed: at least 1s"),
        ({"lease": "25h"}, "--lease: allowed: at most 86400s"),
        ({"tiers": "paid,paid"}, "--tiers: a tier is named twice"),
        ({"tiers": "paid,very free"}, "--tiers: 'very free' is not a name"),
        ({"tiers": ",".join(map(str, range(101)))}, "--tiers: name 1 to 100 tiers"),
        ({"store": "mysql:x"}, "--store: 'mysql:x' is not a store"),
        ({"store": "sqlite:"}, "--store: 'sqlite:' is not a store"),
        ({"listen": "localhost"}, "--listen: 'localhost' is not HOST:PORT"),
        ({"listen": ":50051"}, "--listen: ':50051' is not HOST:PORT"),
        ({"listen": "localhost:65536"}, "--listen: 'localhost:65536' is not HOST:PORT"),
        ({"listen": "localhost:\u0661"}, "is not HOST:PORT"),
        ({"require_lease_id": "perhaps"}, "--require-lease-id: "),
    ],
)
def test_a_bad_flag_is_named_as_a_flag(flags: dict[str, Any], says: str) -> None:
    assert says in error_of(flags)


def test_a_bad_value_is_named_where_it_stands(file: Path) -> None:
    file.write_text("max_lost = 0")
    line = error_of({"store": "mysql:x"}, {"TASKDIST_LEASE": "never"}, file)
    assert "--store: " in line
    assert "TASKDIST_LEASE: 'never'" in line
    assert f"max_lost in {file}: allowed: at least 1" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lesae = 3", "no setting 'lesae'; there are: log_level, "),
        ("lease = ", "not a TOML file"),
        ("\x00", "not a TOML file"),
        ("lease = true", "lease in "),
        ("lease = [1]", "lease in "),
        ("[lease]\nterm = 1", "lease in "),
        ('tiers = ["a", 3]', "tiers in "),
    ],
)
def test_a_bad_file_is_named(text: str, says: str, file: Path) -> None:
    file.write_text(text)
    line = error_of({}, {}, file)
    assert says in line
    assert str(file) in line


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    assert error_of({}, {}, file) == f"--config {file}: No such file or directory"
    assert error_of({}, {}, file.parent) == f"--config {file.parent}: Is a directory"
    file.write_bytes(b"\xff\xfe")
    assert "not a TOML file" in error_of({}, {}, file)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"slots": 0}, "--slots: allowed: at least 1"),
        ({"slots": 10_001}, "--slots: allowed: at most 10000"),
        ({"failure_rate": 1.5}, "--failure-rate: allowed: at most 1"),
        ({"failure_rate": float("nan")}, "--failure-rate: "),
        ({"speed": 0}, "--speed: allowed: more than 0"),
        ({"drain_timeout": "25h"}, "--drain-timeout: allowed: at most 86400s"),
        ({"server": "somewhere"}, "--server: 'somewhere' is not HOST:PORT"),
    ],
)
def test_a_bad_flag_of_an_agent(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        AgentSettings.load(flags, {})
    assert str(raised.value).startswith(says)


def test_waits_stay_within_what_a_fetch_may_wait() -> None:
    with pytest.raises(SettingsError, match="TASKDIST_WAIT: allowed: at most 60s"):
        AgentSettings.load({}, {"TASKDIST_WAIT": "61s"})
