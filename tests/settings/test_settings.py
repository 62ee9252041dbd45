from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.settings import MIN_API_TOKEN, Settings, SettingsError, describe_keys, load_settings

Load = Callable[..., Settings]
KEYS = {name: allowed for name, _, allowed, _ in describe_keys()}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads settings with a data directory of the test's own and nothing of this shell's environment."""

    def call(*overrides: str, yaml: str | None = None, **environment: str) -> Settings:
        file = None
        if yaml is not None:
            file = tmp_path / "lablink.yaml"
            file.write_text(yaml, encoding="utf-8")
        return load_settings(overrides, file=file, environment={"LABLINK_HOME": str(tmp_path / "home"), **environment})

    return call


def refusal_of(call: Callable[[], object]) -> str:
    """What a refused start says: one line without anything that a terminal would act on."""
    with pytest.raises(SettingsError) as caught:
        call()
    said = str(caught.value)
    assert said
    assert said.splitlines() == [said]
    assert said.isprintable()
    return said


def test_an_override_sets_its_key_and_nothing_else(load: Load) -> None:
    changed, plain = load("server.port=9000", "pool.default.max=50"), load()
    assert (changed.server.port, changed.pool.default.max) == (9000, 50)
    changed.server.port, changed.pool.default.max = plain.server.port, plain.pool.default.max
    assert changed == plain


def test_the_command_line_wins_over_the_file_key_by_key(load: Load) -> None:
    both = load("server.port=9000", yaml="server:\n  port: 1\n  host: 10.0.0.1\nlog: {level: debug}\n")
    assert (both.server.port, both.server.host, both.log.level) == (9000, "10.0.0.1", "debug")


def test_a_later_override_wins_over_an_earlier_one(load: Load) -> None:
    assert load("server.port=9000", "server.port=9001").server.port == 9001


def test_the_environment_may_name_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "named.yaml").write_text("server: {port: 9100}")
    named = str(tmp_path / "named.yaml")
    assert load(LABLINK_CONFIG=named).server.port == 9100
    assert load(yaml="server: {port: 9200}", LABLINK_CONFIG=named).server.port == 9200


def test_a_file_may_leave_groups_empty(load: Load) -> None:
    assert load(yaml="") == load()
    assert load(yaml="server:\n  # port: 9000\npool:\n  default:\n") == load()


@pytest.mark.parametrize("script", ["echo ${HOME} ${x%%.*} ${#x} ${", r"a\${b}\\${c} \\", "a, b: [c] = 'd'\n\t#!é"])
def test_a_script_arrives_as_it_was_written(load: Load, script: str) -> None:
    import json

    assert (
        load(yaml=f"pool: {{default: {{startup_script: {json.dumps(script)}}}}}").pool.default.startup_script == script
    )
    if "\\" not in script:
        quoted = script.replace("'", r"\'")
        assert load(f"pool.default.startup_script='{quoted}'").pool.default.startup_script == script


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("server.port=0", r"server\.port must be a whole number from 1 to 65,535, not '0'"),
        ("server.port=65536", r"server\.port must be a whole number from 1 to 65,535"),
        ("server.port=many", r"server\.port must be a whole number from 1 to 65,535, not 'many'"),
        ("server.port=1.5", r"server\.port must be a whole number"),
        ("server.port=true", r"server\.port must be a whole number"),
        ("server.port=null", r"server\.port must be a whole number"),
        ("server.port=???", r"server\.port must be a whole number"),
        ("server.port=${server.port}", r"server\.port must be a whole number"),
        ("server.port=[1]", r"server\.port must be a whole number"),
        ("server.port={a: 1}", r"server\.port must be a whole number"),
        ("server.port=1,2", r"server\.port: '1,2' cannot be read as one value; put quotes around text"),
        ("server.port=range(1,9)", r"server\.port: .* cannot be read as one value"),
        ("server.port=[", r"server\.port: '\[' cannot be read as one value"),
        ("server.host=", r"server\.host must be a host name or an address"),
        ("server.host='a b'", r"server\.host must be a host name or an address"),
        ("server.public_url=ftp://x", r"server\.public_url must be an http:// or https:// address, not 'ftp://x'"),
        ("live.max_hz=nan", r"live\.max_hz must be a number from 0\.5 to 60"),
        ("jobs.in_process=perhaps", r"jobs\.in_process must be true or false, not 'perhaps'"),
        ("log.level=loud", r"log\.level must be one of debug, info, warning, error, not 'loud'"),
        ("log.level='a\nb'", r"log\.level must be one of .*, not 'a b'"),
        ("pool.default.provider=moon", r"pool\.default\.provider must be one of local"),
        ("pool.default.startup_script='\x00'", r"pool\.default\.startup_script"),
        ("server.prot=1", r"server\.prot is not a key; did you mean server\.port\? allowed: server\.host, "),
        ("servers.port=1", r"servers\.port is not a key; did you mean server\.port\?"),
        ("pool.other.max=1", r"pool\.other\.max is not a key; .*pool\.default\.max"),
        ("nothing=1", r"nothing is not a key; allowed: the groups server, database"),
        ("server=1", r"server is a group of keys; set one of: server\.host, server\.port"),
        ("server={port: 1}", r"server is a group of keys"),
        ("pool.default=null", r"pool\.default is a group of keys"),
        ("hydra.run.dir=/tmp", r"hydra\.run\.dir is not a key"),
        ("secrets.api_token=x", r"secrets\.api_token is not a key"),
        ("home=/tmp", r"home is not a key"),
        ("+server.port=1", r"'\+server\.port=1' is not an override; write key=value, such as server\.port=9000"),
        ("~server.port", r"is not an override"),
        ("server.port", r"'server\.port' is not an override"),
        ("agent.heartbeat_interval_s=60", r"agent\.unreachable_after_s must be more than agent\.heartbeat_int.*60"),
        ("alarms.smtp_host=mail.lab.org", r"alarms\.smtp_host goes with alarms\.email_to and alarms\.email_from"),
        ("pool.default.available_min=101", r"pool\.default\.available_min must be at most pool\.default\.max, 100"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused_with_its_key_and_what_is_allowed(load: Load, override: str, says: str) -> None:
    assert re.search(says, refusal_of(lambda: load(override)))


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("server: {prot: 1}", r"server\.prot is not a key; did you mean server\.port\?"),
        ("server: 5", r"server is a group of keys"),
        ("server: [1]", r"server is a group of keys"),
        ("server: {port: x}", r"server\.port must be a whole number from 1 to 65,535, not 'x'"),
        ("server: {port: {a: 1}}", r"server\.port must be a whole number"),
        ("server: {port: '???'}", r"server\.port must be a whole number"),
        ("server: {host: 2020-01-01 1}", r"server\.host must be a host name"),
        ("1: 2", r"1 is not a key"),
        ("? [a, b]\n: 1", r"(is not a key|is not valid YAML)"),
        ("- server", r"lablink\.yaml must hold keys and values, such as server: \{port: 9000\}"),
        ("just words", r"must hold keys and values"),
        ("server: {port: 1\n", r"lablink\.yaml is not valid YAML: line 2: "),
        ("server: {port: 1}\nserver: {port: 2}", r"is not valid YAML: line 2: found duplicate key server"),
        ("a: &a {b: *a}", r"(a is not a key|is not valid YAML)"),
        ("server: !!python/object:os.system x", r"is not valid YAML"),
        ("\x07", r"is not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_what_is_allowed(load: Load, yaml: str, says: str) -> None:
    assert re.search(says, refusal_of(lambda: load(yaml=yaml)))


def test_an_unreadable_file_is_named(load: Load, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        assert re.search(f"{path} cannot be read: {why}", refusal_of(lambda path=path: load(LABLINK_CONFIG=str(path))))
    (tmp_path / "latin.yaml").write_bytes(b"server: {host: \xe9}")
    assert "not UTF-8" in refusal_of(lambda: load(LABLINK_CONFIG=str(tmp_path / "latin.yaml")))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([*KEYS, "server", "pool.default", "home", "x.y"]) | st.text(max_size=20),
    separator=st.sampled_from(["=", "=", "=", ""]),
    value=st.text(max_size=30)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(
        ["", "null", "???", "${a}", "${oc.env:HOME}", "a,b", "{a:1}", "[1,", "'", '"', "\\", "choice(1)"]
    ),
)
def test_no_override_whatever_ends_in_anything_but_settings_or_one_line(name: str, separator: str, value: str) -> None:
    override = name + separator + value
    try:
        loaded = load_settings([override], environment={"LABLINK_HOME": os.devnull + "/none"})
    except SettingsError as exc:
        said = str(exc)
        assert said.splitlines() == [said]
        assert said.isprintable()
        # The data directory is looked at last: whatever is said of it, the override was found right.
        assert name.partition("=")[0][:10].split("\n")[0].strip() in said or name in KEYS or "override" in said
    else:
        raise AssertionError(f"a data directory that cannot be was taken: {loaded.home}")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from([name for name, allowed in KEYS.items() if " from " in allowed]))
def test_a_figure_is_taken_exactly_within_its_range(data: st.DataObject, name: str) -> None:
    kind, low, high = re.fullmatch(r"a (whole number|number) from (\S+) to (\S+)", KEYS[name]).groups()  # type: ignore[union-attr]
    low, high = float(low.replace(",", "")), float(high.replace(",", ""))
    value = data.draw(
        st.integers(int(low) - 2, int(high) + 2) if kind == "whole number" else st.floats(low - 2, high + 2)
    )
    said = refusal_of(lambda: load_settings([f"{name}={value}"], environment={"LABLINK_HOME": os.devnull + "/none"}))
    is_refused = said.startswith(f"{name} must be a {kind} from")
    assert is_refused == (not low <= value <= high), said


def test_every_key_says_what_it_means_and_what_is_allowed() -> None:
    for name, default, allowed, text in describe_keys():
        assert re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", name)
        assert default
        assert allowed
        assert len(text) > 10, name


def test_secrets_come_from_the_environment_or_from_a_file_that_it_names(load: Load, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-twenty-four-and-more\n")
    loaded = load(LABLINK_ADMIN_PASSWORD="of the environment", LABLINK_API_TOKEN_FILE=str(tmp_path / "token"))
    assert loaded.secrets.admin_password == "of the environment"
    assert loaded.secrets.api_token == "a-token-of-twenty-four-and-more"
    assert "of the environment" not in f"{loaded!r} {loaded.secrets}"


def test_a_secret_that_cannot_be_used_is_named_but_not_shown(load: Load, tmp_path: Path) -> None:
    said = refusal_of(lambda: load(LABLINK_API_TOKEN="short-secret"))
    assert f"LABLINK_API_TOKEN must have {MIN_API_TOKEN} characters or more" in said
    said += refusal_of(lambda: load(LABLINK_DATABASE_URL="mysql://u:short-secret@h/d"))
    said += refusal_of(lambda: load(LABLINK_METRICS_TOKEN="short-secret"))
    for url in ("http://hooks.lab.org/short-secret", "https://u:short-secret@lab.org/", "file:///short-secret"):
        said += refusal_of(lambda url=url: load(LABLINK_WEBHOOK_URL=url))
    assert "LABLINK_DATABASE_URL must begin with postgresql://" in said
    assert "short-secret" not in said
    missing = str(tmp_path / "missing")
    assert f"LABLINK_API_TOKEN_FILE: {missing} cannot be read" in refusal_of(
        lambda: load(LABLINK_API_TOKEN_FILE=missing)
    )


def test_an_unencrypted_mail_server_is_one_of_this_computer(load: Load) -> None:
    mail = ("alarms.email_to=[a@lab.org]", "alarms.email_from=b@lab.org", "alarms.smtp_security=none")
    assert load(*mail, "alarms.smtp_host=127.0.0.1").alarms.email_to == ["a@lab.org"]
    assert "is for a mail server on this computer" in refusal_of(lambda: load(*mail, "alarms.smtp_host=mail.lab.org"))


def test_no_key_is_a_secret() -> None:
    assert not [name for name in KEYS if re.search("password|token|secret|database.*url", name)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["pool.default.provider=aws"], "aws.region must be set for pool.default.provider=aws"),
        (["aws.region=west"], "aws.region must be a region, such as us-west-2, not 'west'"),
        (["aws.environment=stage"], "aws.environment must be one of dev, test, prod, not 'stage'"),
        (["pool.default.aws.ssh_cidrs=[0.0.0.0/0]"], "pool.default.aws.ssh_cidrs must be IPv4 networks with /1 to /32"),
        (
            ["pool.default.aws.subnet_ids=[subnet-01234567]"],
            "pool.default.aws.subnet_ids goes with pool.default.aws.vpc_id, and not with zones",
        ),
        (["terraform.cli_config_file=terraform.rc"], "terraform.cli_config_file must be an absolute path"),
    ],
)
def test_a_wrong_setting_of_aws_is_told(load: Load, given: list[str], sentence: str) -> None:
    assert sentence in refusal_of(lambda: load(*given))


def test_the_first_pool_may_be_on_aws(load: Load) -> None:
    loaded = load(
        "aws.region=eu-west-1", "pool.default.provider=aws", "pool.default.aws.instance_types=[g5.xlarge,p3.2xlarge]"
    )
    assert loaded.pool.default.aws.instance_types == ["g5.xlarge", "p3.2xlarge"]


def test_the_data_directory_is_made_for_its_owner_alone(load: Load, tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        home = load().home
    finally:
        os.umask(former)
    assert home == tmp_path / "home"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_data_directory_that_cannot_be_used_is_named(load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        said = refusal_of(lambda home=home: load(LABLINK_HOME=str(home)))
        assert said.startswith(f"LABLINK_HOME: {home} cannot be used as the data directory: ")


def test_the_public_address_follows_host_and_port_unless_it_is_set(load: Load) -> None:
    assert load("server.port=9000").public_url == "http://127.0.0.1:9000"
    assert load("server.host=0.0.0.0").public_url == "http://127.0.0.1:8080"
    assert load("server.public_url=https://lablink.example.org/").public_url == "https://lablink.example.org"


def test_every_group_of_settings_is_a_dataclass_of_documented_keys() -> None:
    groups = [each for each in dataclasses.fields(Settings) if each.name not in {"home", "secrets"}]
    assert {each.name for each in groups} == {name.partition(".")[0] for name in KEYS}


@pytest.mark.parametrize(
    ("given", "open_by"),
    [
        ((), None),
        (("server.host=::1",), None),
        (("server.public_url=http://localhost:9000",), None),
        (("server.host=0.0.0.0",), "server.host=0.0.0.0"),
        # On loopback, but behind a proxy that is not.
        (("server.public_url=https://lab.example.org",), "server.public_url=https://lab.example.org"),
    ],
)
def test_who_can_get_in_is_known_by_the_address_that_people_use(
    load: Load, given: tuple[str, ...], open_by: str | None
) -> None:
    assert load(*given).open_by == open_by
