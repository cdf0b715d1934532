"""Every setting once: its default, its unit, its bounds, and where it comes from.

A setting is a field of `Settings`. Its value is the flag's, else that of ``CHAT_NAME`` in the
environment, else the key's in the TOML file, else the default. All four ways, and embedding
programs, go through the same check.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from chatproto.errors import NameRefused, SettingError
from chatproto.text import TRANSFORMS, check_nick, clean

Check = Callable[[object], Any]
"""Turns a value from anywhere into the setting's own type, or raises ValueError with a reason."""

MEMORY: Final = "memory"
"""The store that is not a file."""

FOREVER: Final = "forever"

MOTD_LENGTH: Final = 16 * 1024
"""Bytes of a message of the day."""


def whole(low: int, high: int) -> Check:
    """Return the check for a whole number from `low` to `high`."""

    def check(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:20])
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Return the check for a number from `low` to `high`."""

    def check(value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = None
        if value is None or not low <= value <= high:
            raise ValueError(f"must be a number from {low:.9g} to {high:.9g}")
        return float(value)

    return check


def one_of(*choices: str) -> Check:
    """Return the check for one of a few words."""

    def check(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return str(value)

    return check


def yes_or_no(value: object) -> bool:
    """Check a switch, which is a word in the environment."""
    word = str(value).lower() if isinstance(value, str | bool | int) else ""
    if word in ("true", "on", "yes", "1"):
        return True
    if word in ("false", "off", "no", "0"):
        return False
    raise ValueError("must be on or off")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _text_or_file(value: object) -> str:
    text = _text(value)
    # Absolute, as a daemon may change its folder before it reads the file again.
    return "@" + os.path.abspath(text[1:]) if text.startswith("@") else text


def _store(value: object) -> str:
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError("must be a file, or memory")
    if "://" in text:
        raise ValueError("must be a file, or memory: there is no other kind of store")
    # Absolute, as a daemon changes its folder.
    return text if text == MEMORY else os.path.abspath(text)


_AMOUNT = re.compile(r"([1-9][0-9]{0,9})(d?)")


def _retain(value: object) -> str:
    text = str(value)
    if isinstance(value, bool) or not (text == FOREVER or _AMOUNT.fullmatch(text)):
        raise ValueError("must be forever, days as 90d, or a number of lines")
    return text


def _nicks(value: object) -> tuple[str, ...]:
    nicks = (value,) if isinstance(value, str) else value
    if not isinstance(nicks, list | tuple):
        raise ValueError("must be a nick or a list of nicks")
    try:
        return tuple(check_nick(_text(nick)) for nick in nicks)
    except NameRefused as error:
        raise ValueError(f"must be a nick: {error.sentence}") from None


def _ports(value: object) -> tuple[str, ...]:
    ports = (value,) if isinstance(value, str | int) else value
    if not isinstance(ports, list | tuple) or not ports:
        raise ValueError("must be a port or a list of ports")
    return tuple(_port(port) for port in ports)


def _port(value: object) -> str:
    port = str(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not port.strip():
        raise ValueError("must be a port number or an endpoint")
    digits = port.lstrip("+-")
    if digits.isdigit() and not (port.isascii() and port == digits and int(port[:20]) <= 65535):
        raise ValueError("must be a port number from 0 to 65535")
    return port


def _setting(
    default: object, check: Check, text: str, metavar: str = "N", *, many: bool = False
) -> Any:
    """Declare a setting: `text` is its help, in which ``%s`` is the default; with `many` it may be
    given several times. One whose default is False is a switch.
    """
    return field(
        default=default,
        metadata={"check": check, "help": text, "metavar": metavar, "many": many},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server is to behave. Raises `SettingError` for a value that a setting cannot have."""

    port: tuple[str, ...] = _setting(
        ("12345",),
        _ports,
        "where to listen: a number (IPv4 and IPv6), or any endpoint of Twisted's, as "
        "ssl:…, unix:PATH:mode=660, tcp6:…, systemd:…; may be given several times [12345]",
        "PORT",
        many=True,
    )
    transform: str = _setting(
        "upper", one_of(*TRANSFORMS), "what happens to what is said: upper or none [%s]", "NAME"
    )
    nicknames: str = _setting(
        "optional",
        one_of("optional", "required", "off"),
        "optional, required, or off: every line is data [%s]",
        "WHEN",
    )
    motd: str = _setting(
        "", _text_or_file, "message of the day: a text, or @FILE; sent on connecting", "TEXT"
    )
    store: str = _setting(
        "chat.db", _store, "where everything is kept: a file, or memory [%s]", "FILE"
    )
    durability: str = _setting(
        "full",
        one_of("full", "normal"),
        "full, or normal: faster on a slow disk, but a power cut may take the last lines [%s]",
        "HOW",
    )
    history: str = _setting(
        "on", one_of("on", "off"), "on, or off: nothing that is said is kept on disk [%s]", "WHEN"
    )
    replay: int = _setting(0, whole(0, 1000), "lines of the past sent on joining a room [%s]")
    retain: str = _setting(
        FOREVER,
        _retain,
        "how long history is kept: forever, days as 90d, or a number of lines of each room [%s]",
        "AMOUNT",
    )
    operator: tuple[str, ...] = _setting(
        (), _nicks, "an account that may moderate; may be given several times", "NICK", many=True
    )
    plaintext_login: bool = _setting(
        False,
        yes_or_no,
        "allow passwords over connections from other machines that are not encrypted",
    )
    burst: int = _setting(100, whole(1, 1_000_000), "lines that one client may send at once [%s]")
    rate: float = _setting(
        10.0, number(0, 1_000_000), "lines a second after that; 0: no limit at all [%s]"
    )
    max_line: int = _setting(4096, whole(16, 65536), "bytes that a line may have [%s]", "BYTES")
    max_clients: int = _setting(
        10_000,
        whole(1, 1_000_000),
        "clients at once; never above the limit of open files less 64 [%s]",
    )
    max_per_address: int = _setting(
        100, whole(1, 1_000_000), "clients from one address; loopback is exempt [%s]"
    )
    stall: float = _setting(
        900.0,
        number(1, 1_000_000),
        "seconds until a reader that accepts nothing is closed [%s]",
        "SECONDS",
    )
    drain: float = _setting(
        10.0,
        number(0, 3600),
        "seconds to send what is queued when the server stops [%s]",
        "SECONDS",
    )
    high_water: int = _setting(
        64,
        whole(1, 65536),
        "KiB queued for a client before it catches up from the log instead [%s]",
        "KIB",
    )
    log_format: str = _setting(
        "text", one_of("text", "json"), "text, or json: one object on a line [%s]", "FORMAT"
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            try:
                object.__setattr__(self, setting.name, setting.metadata["check"](value))
            except ValueError as reason:
                raise SettingError(f"{flag(setting)} {reason}, not {_shown(value)}") from None
        if self.replay and self.history == "off":
            raise SettingError("--replay needs --history on")
        if self.durability != "full" and self.store == MEMORY:
            raise SettingError("--durability needs a store in a file")
        if self.retain != FOREVER and (self.history == "off" or self.store == MEMORY):
            raise SettingError("--retain needs --history on and a store in a file")

    @property
    def retain_seconds(self) -> float | None:
        """How old an event may become, None for any age."""
        amount = _AMOUNT.fullmatch(self.retain)
        return int(amount[1]) * 86400.0 if amount and amount[2] else None

    @property
    def retain_lines(self) -> int | None:
        """How many events of each room are kept, None for any number."""
        amount = _AMOUNT.fullmatch(self.retain)
        return int(amount[1]) if amount and not amount[2] else None

    def read_motd(self) -> str:
        """Return the message of the day, safe to send, from its file if it is in one.

        Raises `SettingError`.
        """
        text = self.motd
        if text.startswith("@"):
            try:
                with Path(text[1:]).open("rb") as file:
                    content = file.read(MOTD_LENGTH + 1)
            except OSError as error:
                raise SettingError(f"--motd: cannot read {text[1:]!r}: {_reason(error)}") from None
        else:
            content = text.encode(errors="surrogateescape")
        if len(content) > MOTD_LENGTH:
            raise SettingError(f"--motd: has more than {MOTD_LENGTH} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise SettingError("--motd: is not UTF-8") from None
        return "\n".join(clean(line) for line in text.splitlines())


SETTINGS: Final[dict[str, Field[Any]]] = {
    setting.name.replace("_", "-"): setting for setting in fields(Settings)
}
"""Every setting by its name on the command line, without the dashes."""


def flag(setting: Field[Any]) -> str:
    """Return the flag of a setting."""
    return "--" + setting.name.replace("_", "-")


def load(flags: Mapping[str, object], environ: Mapping[str, str], config: str | None) -> Settings:
    """Return the settings from the `flags` given, by name, over `environ`, over the file `config`.

    Raises `SettingError`, which names the place a wrong value comes from.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for source, given in (
        (f"in {config}", _from_file(config) if config else {}),
        ("in the environment", _from_environment(environ)),
        ("", flags),
    ):
        for name, value in given.items():
            values[name] = value
            sources[name] = source
    try:
        checked: dict[str, Any] = {SETTINGS[name].name: value for name, value in values.items()}
        return Settings(**checked)
    except SettingError as error:
        source = sources.get(error.sentence.partition(" ")[0].removeprefix("--"), "")
        raise SettingError(f"{error.sentence} ({source})" if source else error.sentence) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    given: dict[str, object] = {}
    for name in SETTINGS:
        value = environ.get("CHAT_" + name.upper().replace("-", "_"))
        if value is not None:
            # A list is written with spaces: no endpoint has one.
            given[name] = value.split() if SETTINGS[name].metadata["many"] else value
    return given


def _from_file(path: str) -> dict[str, object]:
    try:
        with Path(path).open("rb") as file:
            given = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise SettingError(f"--config: cannot read {path!r}: {_reason(error)}") from None
    for name in given:
        if name not in SETTINGS:
            raise SettingError(f"--config: there is no setting {_shown(name)} (in {path})")
    return given


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return getattr(error, "strerror", None) or str(error)


def _shown(value: object) -> str:
    """Return a value as a person wrote it, on one line."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return clean(repr(value))[:100]
