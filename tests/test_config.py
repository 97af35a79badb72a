"""Where each setting comes from, and which values are none."""

import argparse
import tomllib
from pathlib import Path

import pytest
from tables import each_row

from config import ClientSettings, Loaded, ServerSettings, add_flags, load, settings_of
from sft.common.errors import UsageError
from sft.console.command_line import flag_of
from sft.console.receiver_names import split_name

SHAPES = [ClientSettings, ServerSettings]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a settings file, for any user that runs this."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


def server(
    flags: dict[str, str | None] | None = None, environment: dict[str, str] | None = None, file: str | Path = ""
) -> Loaded[ServerSettings]:
    return load(ServerSettings, flags or {}, environment or {}, str(file) or None)


def client(flags: dict[str, str | None] | None = None, environment: dict[str, str] | None = None) -> ClientSettings:
    settings: ClientSettings = load(ClientSettings, flags or {}, environment or {}, None).values
    return settings


def written(place: Path, content: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    return place


def refused(name: str, value: str) -> str:
    """The error for a server's setting, given as a flag."""
    with pytest.raises(UsageError) as caught:
        server({name: value})
    assert flag_of(name) in caught.value.cause
    assert caught.value.remedy
    return caught.value.cause


# --- where a value comes from -----------------------------------------------------------------------------------------


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", "port = 3\nmax_logins = 30\nmax_connections = 300\n")
    environment = {"SFT_PORT": "2", "SFT_MAX_LOGINS": "20"}
    loaded = server({"port": "1", "max_logins": None}, environment, file)
    values = loaded.values
    assert (values.port, values.max_logins, values.max_connections, values.grace) == (1, 20, 300, 10)
    assert [loaded.origins[name] for name in ("port", "max_logins", "max_connections", "grace")] == [
        "--port",
        "SFT_MAX_LOGINS",
        str(file),
        "default",
    ]


def test_named_file_before_the_one_of_the_environment_before_the_one_at_home(tmp_path: Path, home: Path) -> None:
    written(home / ".config/secure-file-transfer.toml", "port = 1")
    second = written(tmp_path / "second.toml", "port = 2")
    third = written(tmp_path / "third.toml", "port = 3")
    assert server().values.port == 1
    assert server(environment={"SFT_CONFIG": str(second)}).values.port == 2
    assert server(environment={"SFT_CONFIG": str(second)}, file=third).values.port == 3


def test_no_file_is_ever_read_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("secure-file-transfer.toml", "config.toml", ".config/secure-file-transfer.toml"):
        written(tmp_path / name, "port = 1")
    assert server().origins["port"] == "default"


def test_relative_paths_belong_to_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = written(tmp_path / "etc/s.toml", 'storage = "in/file"\naccounts = "/abs/a"\nserver_log = "../up.log"')
    values = server(file=file).values
    assert values.storage == tmp_path / "etc/in/file"
    assert values.accounts == Path("/abs/a")
    assert values.server_log == tmp_path / "up.log"
    assert server(environment={"SFT_STORAGE": "env"}, file=file).values.storage == tmp_path / "here/env"
    assert server({"storage": "flag"}, {"SFT_STORAGE": "env"}, file).values.storage == tmp_path / "here/flag"


def test_relative_defaults_belong_to_the_script() -> None:
    script = Path(__file__).resolve().parent.parent
    assert server().values.storage == script / "received"
    assert client().client_log == script / "client.log"


def test_tilde_is_the_home(home: Path) -> None:
    assert server({"storage": "~/in"}).values.storage == home / "in"


def test_dash_of_a_password_file_stays_standard_input() -> None:
    assert client({"password_file": "-"}).password_file == Path("-")


def test_one_file_serves_both_programs(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", 'user = "alice"\nmax_logins = 3\nport = 5')
    assert load(ClientSettings, {}, {}, str(file)).values.user == "alice"
    assert server(file=file).values.max_logins == 3


# --- files that can't be used -----------------------------------------------------------------------------------------


def test_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    for environment, file in (({}, str(tmp_path / "no.toml")), ({"SFT_CONFIG": str(tmp_path / "no.toml")}, "")):
        with pytest.raises(UsageError) as caught:
            server(environment=environment, file=file)
        assert str(tmp_path / "no.toml") in caught.value.cause


def test_folder_as_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        server(file=tmp_path)


@pytest.mark.parametrize("content", ["port = ", "port 1", "port = 1\nport = 2", "[", "port = 1 2", "\ufeffport = 1"])
def test_broken_toml_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError) as caught:
        server(file=written(tmp_path / "s.toml", content))
    assert str(tmp_path / "s.toml") in caught.value.cause


def test_toml_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b'storage = "\xff"')
    with pytest.raises(UsageError):
        server(file=tmp_path / "s.toml")


@pytest.mark.parametrize("content", ["prot = 1", "Port = 1", "password = 'x'", "[server]\nport = 1", "max-logins = 1"])
def test_unknown_setting_in_the_file_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError):
        server(file=written(tmp_path / "s.toml", content))


@pytest.mark.parametrize(
    "content",
    [
        "port = 1.5",
        "port = [1]",
        "port = 2020-01-01",
        "port = {a = 1}",
        "port = true",
        "port = nan",
        "portable_names = 1",
        "storage = 7",
        "storage = false",
        "memory = true",
        "memory = 1.5",
        "file_mode = true",
        "log_level = 1",
    ],
)
def test_wrong_type_in_the_file_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError):
        server(file=written(tmp_path / "s.toml", content))


# --- values -----------------------------------------------------------------------------------------------------------


@each_row(("text", "mode"), [("0640", 0o640), ("640", 0o640), ("0o640", 0o640), ("0400", 0o400)])
def test_mode_is_octal(text: str, mode: int) -> None:
    assert server({"file_mode": text}).values.file_mode == mode


def test_mode_of_the_file_may_be_a_number_or_text(tmp_path: Path) -> None:
    for content in ("file_mode = 0o640", 'file_mode = "0640"'):
        assert server(file=written(tmp_path / "s.toml", content)).values.file_mode == 0o640
    with pytest.raises(UsageError):  # decimal by mistake
        server(file=written(tmp_path / "s.toml", "file_mode = 640"))


@each_row("text", [" ", "0", "7", "0755", "0666x", "0777", "04644", "01000", "0200", "-0640", "rw-r--r--"])
def test_refuse_what_is_no_mode(text: str) -> None:
    refused("file_mode", text)


@each_row(
    ("word", "value"),
    [("true", True), ("YES", True), ("1", True), ("false", False), ("No", False), ("0", False)],
)
def test_yes_and_no_are_read(word: str, value: bool) -> None:
    assert server({"portable_names": word}).values.portable_names is value


@each_row("word", ["", "maybe", "2", "on", "true ", "y"])
def test_refuse_neither_yes_nor_no(word: str) -> None:
    refused("portable_names", word)


LIMITS = ["max_connections", "max_logins", "max_logins_per_source", "max_file_size", "memory"]


@each_row("name", LIMITS)
@each_row("value", ["0", "-1", "", "unlimited", "none", "1.0"])
def test_limit_of_zero_or_less_is_an_error_and_never_unlimited(name: str, value: str) -> None:
    refused(name, value)


@each_row(
    ("name", "least", "most"),
    [("port", 0, 65535), ("max_connections", 1, 10_000), ("grace", 0, 86_400), ("max_logins_per_source", 1, 10_000)],
)
def test_whole_numbers_have_a_range(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(server({name: str(value)}).values, name) == value
    for value in (least - 1, most + 1):
        assert f"between {least} and {most}" in refused(name, str(value))


def test_client_needs_a_port_of_its_own() -> None:
    with pytest.raises(UsageError):
        client({"port": "0"})


@each_row(("name", "least", "most"), [("retries", 0, 1_000_000), ("connect_timeout", 1, 3600), ("port", 1, 65535)])
def test_clients_whole_numbers_have_a_range(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(client({name: str(value)}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(UsageError) as caught:
            client({name: str(value)})
        assert f"between {least} and {most}" in caught.value.cause


def test_memory_that_one_connection_does_not_fit_in_is_refused() -> None:
    assert server({"memory": "4MiB"}).values.memory == 4 << 20
    for value in ("1", "4M", "4194303"):
        with pytest.raises(UsageError) as caught:
            server({"memory": value})
        assert f'--memory: "{value}" is less than 4 MiB, the buffers of one connection' == caught.value.cause
        assert caught.value.remedy.endswith("; the default is 256 MiB")


def test_limit_of_the_rate_is_a_size_or_nothing() -> None:
    assert client().limit is None
    assert client({"limit": "none"}).limit is None
    assert client(environment={"SFT_LIMIT": ""}).limit is None
    assert client({"limit": "5M"}).limit == 5_000_000
    for value in ("0", "-1", "fast", "unlimited"):
        with pytest.raises(UsageError):
            client({"limit": value})


@each_row("policy", ["fail", "rename", "replace", "skip"])
def test_policies_are_the_four(policy: str) -> None:
    assert client({"if_exists": policy}).if_exists == policy


@pytest.mark.parametrize("policy", ["Fail", "overwrite"])
def test_refuse_another_policy(policy: str) -> None:
    with pytest.raises(UsageError) as caught:
        client({"if_exists": policy})
    assert "fail, rename, replace, skip" in caught.value.cause


@pytest.mark.parametrize("shape", SHAPES)
def test_empty_value_of_a_flag_is_an_error(shape: type[ClientSettings]) -> None:
    """Most likely it is a shell's variable that is not set; --listen "" would listen to everybody."""
    for name in settings_of(shape):
        with pytest.raises(UsageError) as caught:
            load(shape, {name: ""}, {}, None)
        assert caught.value.cause == f"{flag_of(name)}: the value is empty"


@pytest.mark.parametrize("shape", SHAPES)
def test_empty_variable_counts_as_not_set(shape: type[ClientSettings], tmp_path: Path) -> None:
    nothing = {"SFT_" + name.upper(): "" for name in settings_of(shape)}
    file = written(tmp_path / "s.toml", 'limit = "5M"\nlisten = "127.0.0.1"\nport = 99')
    loaded, expected = load(shape, {}, nothing, str(file)), load(shape, {}, {}, str(file))
    assert (vars(loaded.values), loaded.origins) == (vars(expected.values), expected.origins)


def test_limit_of_the_file_is_lifted_by_a_word(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", 'free_space = "5G"\nfile_mode = "0640"')
    values = server({"free_space": "none", "file_mode": "none"}, file=file).values
    assert (values.free_space, values.file_mode) == (None, None)


def test_empty_path_and_nul_are_errors() -> None:
    refused("storage", "")
    refused("storage", "a\0b")
    refused("listen", "\0")


# --- what --show-config prints ----------------------------------------------------------------------------------------


def test_lines_name_each_setting_once_with_its_origin(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", "max_logins = 9")
    lines = server({"port": "1"}, {"SFT_GRACE": "4"}, file).lines()
    names = [line.split(" ")[0] for line in lines]
    assert names == list(settings_of(ServerSettings))
    by_name = dict(zip(names, lines, strict=True))
    assert by_name["port"].endswith("# --port")
    assert by_name["grace"].endswith("# SFT_GRACE")
    assert by_name["max_logins"].endswith(f"# {file}")
    assert by_name["memory"].endswith("# default")
    assert len({line.index(" = ") for line in lines}) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_are_toml_with_the_values_that_hold(shape: type[ClientSettings]) -> None:
    loaded = load(shape, {"log_level": "debug"}, {}, None)
    found = tomllib.loads("\n".join(loaded.lines()))
    assert found["log_level"] == "debug"
    assert found["port"] == 7380


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_can_be_used_as_a_settings_file(tmp_path: Path, shape: type[ClientSettings]) -> None:
    """What is printed is what the file would have, so it can be one."""
    loaded = load(shape, {}, {}, None)
    file = written(tmp_path / "s.toml", "\n".join(loaded.lines()))
    assert vars(load(shape, {}, {}, str(file)).values) == vars(loaded.values)


def test_lines_with_set_values_can_be_used_as_a_settings_file(tmp_path: Path) -> None:
    flags = {"file_mode": "0640", "portable_names": "yes", "storage": '/a "b"\\c', "listen": "::1,127.0.0.1"}
    loaded = server(dict(flags))
    file = written(tmp_path / "s.toml", "\n".join(loaded.lines()))
    assert vars(server(file=file).values) == vars(loaded.values)


# --- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_every_setting_has_a_flag_and_help(shape: type[ClientSettings]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, shape)
    actions = {action.dest: action for action in parser._actions}
    for name in settings_of(shape):
        assert flag_of(name) in actions[name].option_strings
        assert len(actions[name].help or "") > 5
        assert getattr(parser.parse_args([]), name) is None
        assert getattr(parser.parse_args([flag_of(name), "x"]), name) == "x"
    assert parser.format_help()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_password_is_a_setting(shape: type[ClientSettings]) -> None:
    assert [name for name in settings_of(shape) if "password" in name] in ([], ["password_file"])


# --- receivers of the settings file -----------------------------------------------------------------------------------

RECEIVERS = """
host = "nas.example"
port = 99
user = "alice"
password_file = "above"
limit = "5M"

[receivers.nas]
host = "10.0.0.1"
user = "bob"
password_file = "below"
limit = "1M"
if_exists = "rename"

[receivers."b.c"]
port = 1234
"""


def with_receiver(
    tmp_path: Path, name: str, environment: dict[str, str] | None = None, content: str = RECEIVERS, **flags: str
) -> Loaded[ClientSettings]:
    file, (receiver, _) = written(tmp_path / "s.toml", content), split_name(name, False)
    return load(ClientSettings, dict(flags), environment or {}, str(file), receiver)


@pytest.mark.parametrize(
    ("name", "environment", "flags", "expected"),
    [
        ("", {}, {}, ("nas.example", 99, "alice", "above", 5_000_000)),
        ("nas:", {}, {}, ("10.0.0.1", 7380, "bob", "below", 1_000_000)),
        ("", {}, {"host": "nas"}, ("10.0.0.1", 7380, "bob", "below", 1_000_000)),
        ("", {"SFT_HOST": "nas"}, {}, ("10.0.0.1", 7380, "bob", "below", 1_000_000)),
        ("nas:", {"SFT_HOST": "other"}, {}, ("10.0.0.1", 7380, "bob", "below", 1_000_000)),
        ("bob@nas:", {}, {}, ("10.0.0.1", 7380, "bob", "below", 1_000_000)),
        ("carol@nas:", {}, {}, ("10.0.0.1", 7380, "carol", None, 1_000_000)),
        ("nas:", {}, {"user": "carol"}, ("10.0.0.1", 7380, "carol", None, 1_000_000)),
        ("nas:", {"SFT_USER": "carol"}, {}, ("10.0.0.1", 7380, "carol", None, 1_000_000)),
        ("nas:", {}, {"port": "5", "limit": "2M"}, ("10.0.0.1", 5, "bob", "below", 2_000_000)),
        ("nas:", {"SFT_PORT": "5", "SFT_LIMIT": "2M"}, {}, ("10.0.0.1", 5, "bob", "below", 2_000_000)),
        ("b.c:", {}, {}, ("b.c", 1234, "", None, 5_000_000)),
        ("x.y:", {}, {}, ("x.y", 7380, "", None, 5_000_000)),
        ("[::1]:", {}, {}, ("::1", 7380, "", None, 5_000_000)),
        ("nas.example:", {}, {}, ("nas.example", 99, "alice", "above", 5_000_000)),
        ("carol@nas.example:", {}, {}, ("nas.example", 99, "carol", None, 5_000_000)),
        ("", {}, {"user": "carol"}, ("nas.example", 99, "carol", None, 5_000_000)),
        ("", {}, {"host": "x.y"}, ("x.y", 7380, "", None, 5_000_000)),
    ],
)
def test_receiver_has_its_own_values_and_those_of_no_other(
    tmp_path: Path,
    name: str,
    environment: dict[str, str],
    flags: dict[str, str],
    expected: tuple[str, int, str, str | None, int],
) -> None:
    found = with_receiver(tmp_path, name, environment, **flags).values
    secret = found.password_file and found.password_file.name
    assert (found.host, found.port, found.user, secret, found.limit) == expected


def test_what_stands_above_the_tables_without_a_host_holds_for_every_receiver(tmp_path: Path) -> None:
    content = 'port = 99\nuser = "alice"\npassword_file = "p"\n[receivers.nas]\nhost = "h"\n'
    for name, host in (("nas:", "h"), ("x.y:", "x.y"), ("alice@x.y:", "x.y")):
        found = with_receiver(tmp_path, name, content=content).values
        assert (found.host, found.port, found.user, found.password_file) == (host, 99, "alice", tmp_path / "p")


def test_host_above_the_tables_may_be_a_receiver(tmp_path: Path) -> None:
    content = 'host = "nas"\nuser = "al"\n[receivers.nas]\nhost = "h"\nport = 5\n[receivers.loop]\nhost = "nas"\n'
    found = with_receiver(tmp_path, "", content=content).values
    assert (found.host, found.port, found.user) == ("h", 5, "al")
    assert with_receiver(tmp_path, "loop:", content=content).values.host == "nas"  # looked up once


def test_lines_show_each_receiver_and_can_be_used_as_a_settings_file(tmp_path: Path) -> None:
    loaded = with_receiver(tmp_path, "nas:")
    lines = loaded.lines()
    assert lines[0].endswith(f"# [receivers.nas] in {tmp_path / 's.toml'}")
    shown = tomllib.loads("\n".join(lines))["receivers"]
    assert shown["nas"] == {
        "host": "10.0.0.1",
        "user": "bob",
        "password_file": str(tmp_path / "below"),
        "limit": "1 MB",
        "if_exists": "rename",
    }
    assert shown["b.c"] == {"port": 1234}
    again = load(ClientSettings, {}, {}, str(written(tmp_path / "t.toml", "\n".join(lines))))
    assert again.values == loaded.values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("receivers = 1", "receivers is not made of tables"),
        ("[receivers]\nnas = 1", "receivers is not made of tables"),
        (
            "[receivers.nas.example]\nport = 1",
            'example is a table. A name with a dot stands in quotes: [receivers."nas.example"]',
        ),
        ("[receivers.nas]\nprot = 1", "[receivers.nas] in {file}: unknown setting prot. It may have host, port"),
        ("[receivers.nas]\nclient_log = 'x'", "[receivers.nas] in {file}: unknown setting client_log"),
        ("[receivers.nas]\nport = 1.5", "port in [receivers.nas] in {file}: not a string, whole number"),
        ("[receivers.nas]\nport = 0", "port in [receivers.nas] in {file}: 0 is not between 1 and 65535"),
        ("[receivers.nas]\nhost = 'a@b'", 'host in [receivers.nas] in {file}: "a@b" contains a username'),
        ('[receivers."a/b"]\nport = 1', '[receivers."a/b"] in {file}: a receiver can\'t have that name'),
        ('[receivers."a:b"]\nport = 1', '[receivers."a:b"] in {file}: a receiver can\'t have that name'),
        ('[receivers."a b"]\nport = 1', '[receivers."a b"] in {file}: a receiver can\'t have that name'),
        ('[receivers.""]\nport = 1', '[receivers.""] in {file}: a receiver can\'t have that name'),
    ],
)
def test_error_about_a_receiver_names_file_table_and_key(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_receiver(tmp_path, "", content=content)
    text = str(caught.value)
    assert words.replace("{file}", str(tmp_path / "s.toml")) in text and str(tmp_path / "s.toml") in text


def test_server_takes_nothing_of_a_receivers_table(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", 'host = "nas"\nport = 5\n[receivers.nas]\nport = 6\n')
    assert server(environment={"SFT_HOST": "other"}, file=file).values.port == 5
    with pytest.raises(UsageError):
        server(file=written(file, "[receivers.nas]\nstorage = 'x'\n"))
