"""Settings: where they come from, what they may be, and what a wrong one is told."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from chatproto.errors import SettingError
from chatproto.settings import FOREVER, MEMORY, MOTD_LENGTH, SETTINGS, Settings, load

DEFAULTS: dict[str, Any] = {
    "port": ("12345",),
    "transform": "upper",
    "nicknames": "optional",
    "motd": "",
    "store": os.path.abspath("chat.db"),
    "durability": "full",
    "history": "on",
    "replay": 0,
    "retain": "forever",
    "operator": (),
    "plaintext_login": False,
    "burst": 100,
    "rate": 10.0,
    "max_line": 4096,
    "max_clients": 10_000,
    "max_per_address": 100,
    "stall": 900.0,
    "drain": 10.0,
    "high_water": 64,
    "log_format": "text",
}

OTHERS = {
    "port": ("2323", ("2323",)),
    "transform": ("none", "none"),
    "nicknames": ("required", "required"),
    "motd": ("hello", "hello"),
    "store": ("memory", "memory"),
    "durability": ("normal", "normal"),
    "history": ("off", "off"),
    "replay": ("20", 20),
    "retain": ("90d", "90d"),
    "operator": ("alice", ("alice",)),
    "plaintext-login": ("on", True),
    "burst": ("5", 5),
    "rate": ("0.5", 0.5),
    "max-line": ("512", 512),
    "max-clients": ("7", 7),
    "max-per-address": ("3", 3),
    "stall": ("60", 60.0),
    "drain": ("1.5", 1.5),
    "high-water": ("1", 1),
    "log-format": ("json", "json"),
}
"""For every setting another value than the default: as written, and as it is then."""

PLAIN = {"port": "12345", "operator": "", "plaintext-login": "off"}
"""The defaults of some settings as they are written; of the others their text."""

WRONG: list[tuple[str, Any]] = [
    ("port", ""),
    ("port", " "),
    ("port", "65536"),
    ("port", "-1"),
    ("port", "+80"),
    ("port", "\N{SUPERSCRIPT TWO}"),
    ("port", True),
    ("port", 80.5),
    ("port", []),
    ("port", ["12345", None]),
    ("transform", "lower"),
    ("transform", ""),
    ("transform", ["upper"]),
    ("nicknames", "Off"),
    ("nicknames", False),
    ("motd", 5),
    ("store", ""),
    ("store", 5),
    ("store", True),
    ("store", "a\0b"),
    ("store", "redis://localhost"),
    ("store", ["chat.db"]),
    ("durability", "fast"),
    ("durability", True),
    ("history", "Off"),
    ("history", False),
    ("replay", "-1"),
    ("replay", "1001"),
    ("replay", "some"),
    ("replay", True),
    ("retain", ""),
    ("retain", "0"),
    ("retain", "0d"),
    ("retain", "-5"),
    ("retain", "90 d"),
    ("retain", "90h"),
    ("retain", "1.5d"),
    ("retain", "Forever"),
    ("retain", "99999999999"),
    ("retain", True),
    ("retain", 1.5),
    ("retain", None),
    ("operator", "two words"),
    ("operator", "root"),
    ("operator", 5),
    ("operator", ["alice", "b@b"]),
    ("operator", ["alice", None]),
    ("operator", {"alice": True}),
    ("plaintext-login", ""),
    ("plaintext-login", "maybe"),
    ("plaintext-login", "None"),
    ("plaintext-login", 2),
    ("plaintext-login", None),
    ("plaintext-login", ["on"]),
    ("burst", "0"),
    ("burst", "1.5"),
    ("burst", "ten"),
    ("burst", "-5"),
    ("burst", True),
    ("burst", "\N{SUPERSCRIPT TWO}"),
    ("burst", "9" * 30),
    ("rate", "-0.1"),
    ("rate", "nan"),
    ("rate", "inf"),
    ("rate", "fast"),
    ("rate", True),
    ("rate", None),
    ("max-line", "15"),
    ("max-line", "65537"),
    ("max-clients", "0"),
    ("max-per-address", "0"),
    ("stall", "0"),
    ("drain", "-1"),
    ("high-water", "0"),
    ("log-format", "xml"),
]


def written(folder: Path, text: str) -> str:
    """Write a settings file and return its path."""
    path = folder / "chat.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def toml(name: str, text: str) -> str:
    """Return the line of a TOML file that sets `name`: numbers bare, the rest quoted."""
    return f"{name} = {text}\n" if text.replace(".", "").isdigit() else f'{name} = "{text}"\n'


def variable(name: str) -> str:
    """Return the environment's name for a setting."""
    return "CHAT_" + name.upper().replace("-", "_")


def field(name: str) -> str:
    """Return the name of the setting in `Settings`."""
    return name.replace("-", "_")


def test_the_defaults() -> None:
    """Without any flag the server is as the documentation says."""
    given = Settings()
    assert {field(name): getattr(given, field(name)) for name in SETTINGS} == DEFAULTS


def test_settings_are_frozen() -> None:
    """A running server's settings cannot be changed under it."""
    with pytest.raises(FrozenInstanceError):
        Settings().rate = 5.0  # type: ignore[misc]  # that it cannot be assigned is the point


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_comes_from_anywhere(name: str, tmp_path: Path) -> None:
    """A flag, a variable and a key of the file each set every setting, with one meaning."""
    text, value = OTHERS[name]
    from_flag = load({name: text}, {}, None)
    from_environment = load({}, {variable(name): text}, None)
    from_file = load({}, {}, written(tmp_path, toml(name, text)))
    assert getattr(from_flag, field(name)) == value != DEFAULTS[field(name)]
    assert from_flag == from_environment == from_file


@pytest.mark.parametrize("name", SETTINGS)
def test_flag_over_environment_over_file(name: str, tmp_path: Path) -> None:
    """A flag goes over the environment, the environment over the file, the file over defaults."""
    text, value = OTHERS[name]
    plain = PLAIN.get(name, str(DEFAULTS[field(name)]))
    default = getattr(Settings(), field(name))
    config = written(tmp_path, toml(name, text))
    assert getattr(load({}, {variable(name): plain}, config), field(name)) == default
    assert getattr(load({name: text}, {variable(name): plain}, None), field(name)) == value
    # An empty list is no flag at all.
    flags: dict[str, object] = {name: [] if name == "operator" else plain}
    assert getattr(load(flags, {variable(name): text}, config), field(name)) == default


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    """A value that a setting cannot have is one line with the flag and what it must be."""
    with pytest.raises(SettingError, match=rf"^--{name} must be .*, not ") as caught:
        load({name: value}, {}, None)
    assert len(caught.value.sentence.splitlines()) == 1
    with pytest.raises(SettingError, match=rf"^--{name} must be "):
        Settings(**{field(name): value})


def test_a_wrong_value_tells_where_it_came_from(tmp_path: Path) -> None:
    """An operator reads whether to look in the environment or in the file, and in which."""
    with pytest.raises(SettingError, match=r"--burst .* \(in the environment\)$"):
        load({}, {"CHAT_BURST": "lots"}, None)
    config = written(tmp_path, 'burst = "lots"\n')
    with pytest.raises(SettingError, match=r"--burst .* \(in .*chat\.toml\)$"):
        load({}, {}, config)
    with pytest.raises(SettingError, match=r"not 'lots'$"):
        load({"burst": "lots"}, {}, None)


@pytest.mark.parametrize("value", ["a\x1b[2Jb", "a\nb", "x" * 10_000])
def test_a_wrong_value_is_shown_safely(value: str) -> None:
    """A long value or one with control characters does not spoil the terminal it is shown on."""
    with pytest.raises(SettingError) as caught:
        Settings(transform=value)
    assert caught.value.sentence.isprintable()
    assert len(caught.value.sentence) < 200


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (2323, ("2323",)),
        ("0", ("0",)),
        ("65535", ("65535",)),
        ("unix:/run/chat:mode=660", ("unix:/run/chat:mode=660",)),
        (["2323", "tcp6:2324"], ("2323", "tcp6:2324")),
        ((2323, 2324), ("2323", "2324")),
    ],
)
def test_ports(value: Any, ports: tuple[str, ...]) -> None:
    """A port is a number or an endpoint, and there may be several."""
    assert Settings(port=value).port == ports


def test_several_ports_from_the_environment_and_the_file(tmp_path: Path) -> None:
    """The environment separates ports with spaces, the file has a list."""
    assert load({}, {"CHAT_PORT": "2323 tcp6:2324"}, None).port == ("2323", "tcp6:2324")
    config = written(tmp_path, 'port = [2323, "tcp6:2324"]\n')
    assert load({}, {}, config).port == ("2323", "tcp6:2324")


def test_an_empty_port_in_the_environment_is_wrong() -> None:
    """A variable that is set but empty is a mistake that is told, not a server without a port."""
    with pytest.raises(SettingError, match=r"^--port .*\(in the environment\)$"):
        load({}, {"CHAT_PORT": ""}, None)


@pytest.mark.parametrize("key", ["brust", "max_line", "port-number", "chat"])
def test_an_unknown_key_is_named(key: str, tmp_path: Path) -> None:
    """A key of the file that is no setting is told, with the file."""
    config = written(tmp_path, f"{key} = 5\n")
    with pytest.raises(SettingError, match=rf"^--config: .*'{key}' \(in .*chat\.toml\)$"):
        load({}, {}, config)


def test_other_variables_are_left_alone() -> None:
    """Variables that are no settings of ours do not matter."""
    assert load({}, {"PATH": "/bin", "CHAT_CONFIG": "x", "BURST": "5"}, None) == Settings()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"burst = \n", "Invalid value"), (b"motd = '\xff'\n", "not UTF-8"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read(content: bytes | None, reason: str, tmp_path: Path) -> None:
    """A settings file that is missing or wrong is one line with its name and the reason."""
    path = tmp_path / "chat.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=rf"^--config: cannot read .*chat\.toml.*{reason}"):
        load({}, {}, str(path))


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    """A path that is not a file is told as such."""
    with pytest.raises(SettingError, match=r"^--config: cannot read .*: Is a directory$"):
        load({}, {}, str(tmp_path))


class TestStore:
    """Where everything is kept, and for how long."""

    @pytest.mark.parametrize("path", ["chat.db", "folder/chat.db", "../chat.db", "./memory"])
    def test_it_is_absolute(
        self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A daemon that changes its folder finds the file where it was when it was started."""
        monkeypatch.chdir(tmp_path)
        given = Settings(store=path)
        monkeypatch.chdir("/")
        assert given.store == os.path.normpath(tmp_path / path)
        assert Settings(store=given.store) == given

    def test_memory_is_no_file(self) -> None:
        """The word memory is the store that is in no file."""
        assert Settings(store="memory").store == MEMORY

    @pytest.mark.parametrize("url", ["redis://localhost:6379", "sqlite:///chat.db", "file://x"])
    def test_there_is_no_other_kind(self, url: str) -> None:
        """An address of another kind of store is told as such, not taken for a file."""
        with pytest.raises(SettingError, match=r"^--store must be .* no other kind of store, not "):
            Settings(store=url)

    def test_replay_needs_a_history(self, tmp_path: Path) -> None:
        """Nothing can be shown of what is not kept; the error tells where that was asked for."""
        with pytest.raises(SettingError, match=r"^--replay needs --history on$"):
            Settings(history="off", replay=1)
        config = written(tmp_path, "replay = 5\n")
        with pytest.raises(SettingError, match=r"^--replay needs .* \(in .*chat\.toml\)$"):
            load({"history": "off"}, {}, config)
        assert Settings(history="off", replay=0).history == "off"
        assert Settings(store="memory", replay=5).replay == 5

    @pytest.mark.parametrize(
        ("retain", "seconds", "lines"),
        [
            (FOREVER, None, None),
            ("1d", 86_400.0, None),
            ("90d", 90 * 86_400.0, None),
            ("1", None, 1),
            ("100000", None, 100_000),
            (5000, None, 5000),
        ],
    )
    def test_retain(
        self, retain: Any, seconds: float | None, lines: int | None, tmp_path: Path
    ) -> None:
        """History is kept for ever, for days, or so many lines of each room."""
        given = Settings(retain=retain)
        assert (given.retain_seconds, given.retain_lines) == (seconds, lines)
        assert load({}, {"CHAT_RETAIN": str(retain)}, None) == given
        config = written(tmp_path, toml("retain", str(retain)))
        assert load({}, {}, config) == given

    @pytest.mark.parametrize("other", [{"store": "memory"}, {"history": "off"}])
    @pytest.mark.parametrize("retain", ["90d", "1000"])
    def test_retain_needs_a_file(self, retain: str, other: dict[str, str]) -> None:
        """What is not in a file cannot be kept for some time; for ever is no promise."""
        with pytest.raises(SettingError, match=r"^--retain needs --history on and a store in "):
            load({"retain": retain, **other}, {}, None)
        with pytest.raises(SettingError, match=r"^--retain needs .*\(in the environment\)$"):
            load(other, {"CHAT_RETAIN": retain}, None)
        assert load({"retain": FOREVER, **other}, {}, None).retain_lines is None


class TestOperators:
    """Who may moderate."""

    @pytest.mark.parametrize(
        ("value", "operators"),
        [("alice", ("alice",)), (["alice", "Bob"], ("alice", "Bob")), ((), ()), ([], ())],
    )
    def test_one_or_several(self, value: Any, operators: tuple[str, ...]) -> None:
        """An operator is a nick, and there may be several, or none."""
        assert Settings(operator=value).operator == operators

    def test_from_anywhere(self, tmp_path: Path) -> None:
        """The environment separates nicks with spaces, the file has a list, a flag comes again."""
        several = ("alice", "Bob")
        config = written(tmp_path, 'operator = ["alice", "Bob"]\n')
        assert load({}, {}, config).operator == several
        assert load({}, {"CHAT_OPERATOR": " alice  Bob "}, None).operator == several
        assert load({"operator": ["alice", "Bob"]}, {}, None).operator == several
        assert load({}, {"CHAT_OPERATOR": ""}, config).operator == ()

    def test_no_nick(self) -> None:
        """What cannot be a nick is refused with the reason."""
        with pytest.raises(SettingError, match=r"^--operator must be a nick: .*reserved.*environ"):
            load({}, {"CHAT_OPERATOR": "alice root"}, None)


class TestSwitch:
    """A setting that is on or off."""

    @pytest.mark.parametrize("word", ["on", "ON", "yes", "true", "True", "1"])
    def test_on(self, word: str) -> None:
        """The environment turns it on with any of the usual words."""
        assert load({}, {"CHAT_PLAINTEXT_LOGIN": word}, None).plaintext_login is True

    @pytest.mark.parametrize("word", ["off", "Off", "no", "false", "0"])
    def test_off(self, word: str, tmp_path: Path) -> None:
        """The environment turns it off too, over the file."""
        config = written(tmp_path, "plaintext-login = true\n")
        assert load({}, {"CHAT_PLAINTEXT_LOGIN": word}, config).plaintext_login is False

    @pytest.mark.parametrize(
        ("value", "expected"), [("true", True), ("false", False), ('"on"', True), ('"off"', False)]
    )
    def test_in_the_file(self, value: str, expected: bool, tmp_path: Path) -> None:
        """The file may have TOML's own values, or the words."""
        config = written(tmp_path, f"plaintext-login = {value}\n")
        assert load({}, {}, config).plaintext_login is expected
        assert load({"plaintext-login": True}, {}, config).plaintext_login is True

    def test_a_wrong_word(self) -> None:
        """Any other word is refused."""
        with pytest.raises(
            SettingError, match=r"^--plaintext-login must be on or off, not 'maybe'"
        ):
            load({}, {"CHAT_PLAINTEXT_LOGIN": "maybe"}, None)


class TestMotd:
    """The message of the day."""

    def test_a_text(self) -> None:
        """The setting itself is the message."""
        assert Settings(motd="hello\nworld").read_motd() == "hello\nworld"

    def test_a_file(self, tmp_path: Path) -> None:
        """Behind an @ is the file that holds it; it is read each time it is asked for."""
        path = tmp_path / "motd"
        path.write_text("grüß dich\n", encoding="utf-8")
        given = Settings(motd=f"@{path}")
        assert given.read_motd() == "grüß dich"
        path.write_text("other", encoding="utf-8")
        assert given.read_motd() == "other"

    def test_it_is_safe(self, tmp_path: Path) -> None:
        """Control characters do not come through, from the setting or a file."""
        path = tmp_path / "motd"
        path.write_text("a\x1b[31mb\r\n\u202ec\n", encoding="utf-8")
        assert Settings(motd=f"@{path}").read_motd() == "ab\nc"
        assert Settings(motd="a\x1b[31mb\r\n\u202ec\n").read_motd() == "ab\nc"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "No such file"),
            (b"\xff", "not UTF-8"),
            (b"x" * (MOTD_LENGTH + 1), "more than"),
            ("ü".encode() * MOTD_LENGTH, "more than"),
        ],
    )
    def test_a_file_that_cannot_be(
        self, content: bytes | None, reason: str, tmp_path: Path
    ) -> None:
        """A file that is missing, not text or too long is an error that tells the reason."""
        path = tmp_path / "motd"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingError, match=rf"^--motd: .*{reason}"):
            Settings(motd=f"@{path}").read_motd()

    @pytest.mark.parametrize("text", ["x" * (MOTD_LENGTH + 1), "ü" * MOTD_LENGTH])
    def test_a_text_that_is_too_long(self, text: str) -> None:
        """The length counts bytes, wherever the message comes from."""
        with pytest.raises(SettingError, match=r"^--motd: .*more than"):
            Settings(motd=text).read_motd()

    def test_a_text_that_is_not_utf8(self) -> None:
        """Bytes on the command line that are not UTF-8 are refused like those in a file."""
        as_argument = b"caf\xe9".decode(errors="surrogateescape")
        with pytest.raises(SettingError, match=r"^--motd.*not UTF-8"):
            Settings(motd=as_argument).read_motd()

    def test_the_longest(self) -> None:
        """A message of exactly the length allowed is allowed."""
        assert Settings(motd="x" * MOTD_LENGTH).read_motd() == "x" * MOTD_LENGTH
