"""``twistd chat``: flags, their errors, and the service they come to."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.application.service import Application, IService
from twisted.internet import reactor
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

import chatproto
from chatproto.errors import StoreError
from chatproto.listening import close_now
from chatproto.service import ChatService
from chatproto.settings import SETTINGS, Settings
from chatproto.stores.sqlite.file import StoreFile
from chatproto.tap import Options, makeService

F = TypeVar("F", bound=Callable[..., Any])

in_reactor: Callable[[F], F] = pytest_twisted.ensureDeferred

Serve = Callable[..., ChatService]
"""Makes the service for some flags; keyword arguments are twistd's own options."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the CHAT_ variables of whoever runs the tests."""
    for name in [*SETTINGS, "config"]:
        monkeypatch.delenv(variable(name), raising=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def variable(name: str) -> str:
    """Return the environment's name for a setting."""
    return "CHAT_" + name.upper().replace("-", "_")


@pytest.fixture
def busy_port() -> Iterator[int]:
    """Return the number of a port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def parsed(*flags: str, **twistd: Any) -> Options:
    """Return the options for these flags, below twistd's own when those are given."""
    options = Options()
    if twistd:
        parent = usage.Options()
        parent.update(twistd)
        options.parent = parent
    options.parseOptions(flags)
    return options


def refusal(capsys: pytest.CaptureFixture[str], *flags: str, **twistd: Any) -> str:
    """Return the one line with which these flags are refused."""
    with pytest.raises(SystemExit) as caught:
        makeService(parsed(*flags, **twistd))
    line = caught.value.code
    assert isinstance(line, str)  # which Python prints to standard error, and exits with status 1
    assert len(line.splitlines()) == 1
    assert capsys.readouterr() == ("", "")
    return line


def test_no_flags_are_the_defaults() -> None:
    """Without flags the settings are the defaults."""
    assert parsed().settings == Settings()


@pytest.mark.parametrize("flag", ["--port", "-p"])
def test_the_port_may_be_given_several_times(flag: str) -> None:
    """Each port is one more place to listen."""
    options = parsed(flag, "2323", flag, "tcp6:2324")
    assert options.settings.port == ("2323", "tcp6:2324")


def test_flags_reach_the_settings() -> None:
    """A flag with its value, attached or apart, is the setting."""
    options = parsed("--max-line=512", "--rate", "0", "--nicknames", "off")
    assert options.settings == Settings(max_line=512, rate=0, nicknames="off")


def test_an_operator_may_be_given_several_times() -> None:
    """Each operator is one more account that may moderate."""
    options = parsed("--operator", "alice", "--operator=Bob")
    assert options.settings.operator == ("alice", "Bob")


def test_a_switch_is_a_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A switch takes no value; it goes over the other sources, and where it is not given they
    count.
    """
    config = tmp_path / "chat.toml"
    config.write_text("plaintext-login = true\n")
    from_file = ("--config", str(config))
    assert not parsed().settings.plaintext_login
    assert parsed(*from_file).settings.plaintext_login
    monkeypatch.setenv("CHAT_PLAINTEXT_LOGIN", "off")
    assert not parsed(*from_file).settings.plaintext_login
    assert parsed("--plaintext-login", *from_file).settings.plaintext_login


def test_checkers_from_the_command_line(folder: Path) -> None:
    """`--auth` names Twisted's own checkers, which then check the passwords."""
    (folder / "passwords").write_text("alice:secret\n")
    port = f"unix:{folder}/chat.sock"
    options = parsed("--auth", "file:passwords", "--store", "memory", "--port", port)
    (checker,) = options["credCheckers"]
    service = makeService(options)
    assert isinstance(service, ChatService)
    assert service.factory.hub.accounts.are_elsewhere
    assert service.factory.hub.accounts._checkers == [checker]
    close_now(reactor, service._ports)


def test_flag_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three sources go over one another on the real command line."""
    config = tmp_path / "chat.toml"
    config.write_text("burst = 1\nmax-line = 111\nstall = 11\n")
    monkeypatch.setenv("CHAT_BURST", "2")
    monkeypatch.setenv("CHAT_MAX_LINE", "222")
    options = parsed("--config", str(config), "--burst", "3")
    assert options.settings == Settings(burst=3, max_line=222, stall=11)


@pytest.mark.parametrize("flags", [("--config", "chat.toml"), ("-c", "chat.toml"), ()])
def test_the_file_is_named_by_a_flag_or_the_environment(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--config` names the file, else CHAT_CONFIG does."""
    monkeypatch.chdir(tmp_path)
    Path("chat.toml").write_text("burst = 7\n")
    Path("other.toml").write_text("burst = 8\n")
    monkeypatch.setenv("CHAT_CONFIG", "other.toml")
    assert parsed(*flags).settings.burst == (7 if flags else 8)


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows each setting with its default, and ends well."""
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert not caught.value.code
    shown = capsys.readouterr().out
    for name, setting in SETTINGS.items():
        (about,) = re.findall(rf"--{name}[= \n].*?(?=\n +-|\Z)", shown, re.S)
        default: Any = setting.default
        if name == "port":
            (default,) = default
        if default not in ("", (), False):
            shown_default = f"{default:g}" if isinstance(default, float) else default
            assert f"[{shown_default}]" in about
    assert "--config" in shown
    assert "%s" not in shown
    assert "None" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints ours, and ends well."""
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert not caught.value.code
    assert capsys.readouterr().out == f"chatproto {chatproto.__version__}\n"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--burst", "lots"), "--burst"),
        (("--port", "70000"), "--port"),
        (("--transform", "lower"), "--transform"),
        (("--config", "/nowhere/chat.toml"), "--config"),
        (("--motd", "@/nowhere/motd"), "--motd"),
        (("--port", "nosuch:thing"), "--port nosuch:thing"),
        (("--brust", "5"), "--brust|brust"),
        (("--store", "redis://localhost"), "--store"),
        (("--store", "nowhere/chat.db"), "--store .*/nowhere/chat.db: .*No such file"),
        (("--store", "."), "--store .*: "),
        (("--retain", "some"), "--retain"),
        (("--retain", "90d", "--store", "memory"), "--retain needs"),
        (("--replay", "5", "--history", "off"), "--replay needs"),
        (("--operator", "two words"), "--operator"),
        (("--plaintext-login", "off"), "argument"),
        (("--auth", "nonsense:x"), "nonsense"),
        (("--burst",), "--burst|burst"),
        (("word",), "argument"),
    ],
)
def test_a_wrong_flag_is_one_line(
    flags: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value, an unknown flag, an unreadable file: one line that names the setting."""
    assert re.match(rf"twistd chat: .*({named})", refusal(capsys, *flags))


@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if name not in ("port", "motd", "store")]
)
def test_a_wrong_variable_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value in the environment is told like a wrong flag, with where it is."""
    monkeypatch.setenv(variable(name), "?")
    line = refusal(capsys)
    assert line.startswith(f"twistd chat: --{name} must be ")
    assert line.endswith("(in the environment)")


def test_a_wrong_key_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that is no setting is named, with the file it is in."""
    config = tmp_path / "chat.toml"
    config.write_text("brust = 5\n")
    line = refusal(capsys, "--config", str(config))
    assert "'brust'" in line
    assert str(config) in line


def test_a_busy_port_is_one_line(busy_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody else has is told, and none of the others stays open."""
    flag = f"tcp:{busy_port}:interface=127.0.0.1"
    line = refusal(capsys, "--port", flag)
    assert line == f"twistd chat: --port {flag}: the port is in use already"


def test_a_start_that_fails_leaves_no_log(
    busy_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the port is busy, no log file is left that was not there before."""
    path = tmp_path / "chat.log"
    refusal(capsys, "--port", f"tcp:{busy_port}:interface=127.0.0.1", logfile=str(path))
    assert not path.exists()


def test_a_log_from_before_outlives_a_start_that_fails(
    busy_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the port is busy, the log of earlier runs stays as it was."""
    path = tmp_path / "chat.log"
    path.write_text("earlier\n")
    refusal(capsys, "--port", f"tcp:{busy_port}:interface=127.0.0.1", logfile=str(path))
    assert path.read_text() == "earlier\n"


def test_a_store_in_use_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that another server uses is told, and no port is opened."""
    other = StoreFile("chat.db")
    other.prepare()
    try:
        line = refusal(capsys, "--port", "unix:chat.sock")
    finally:
        other.unlock()
    assert line == f"twistd chat: --store {folder}/chat.db: another server is using it"
    assert not (folder / "chat.sock").exists()


def test_a_foreign_store_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no store of ours is told, and left as it is."""
    path = folder / "letter.txt"
    path.write_text("dear reader, " * 1000)
    line = refusal(capsys, "--port", "unix:chat.sock", "--store", "letter.txt")
    assert line == f"twistd chat: --store {path}: this is not a database"
    assert path.read_text() == "dear reader, " * 1000


def test_a_start_that_fails_lets_the_store_go(
    busy_port: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the port is busy the store is free for another server."""
    refusal(capsys, "--port", f"tcp:{busy_port}:interface=127.0.0.1")
    other = StoreFile("chat.db")
    other.prepare()
    other.unlock()


class TestService:
    """What the flags come to."""

    @pytest.fixture
    def serve(self, tmp_path: Path) -> Iterator[Serve]:
        """Return what makes the service for some flags, on a socket outside of the folder."""
        made: list[ChatService] = []

        def serve(*flags: str, **twistd: Any) -> ChatService:
            port = f"unix:{tmp_path}/chat.sock"
            options = parsed("--port", port, "--store", "memory", *flags, **twistd)
            service = makeService(options)
            assert isinstance(service, ChatService)
            made.append(service)
            return service

        yield serve
        for service in made:
            for port in service._ports:
                port.stopListening()
            if service._logging is not None and service._logging.file is not None:
                service._logging.file._file.close()

    @staticmethod
    def say_hello(service: ChatService) -> bool:
        """Log "hello" as the application does that the service joins; tell whether to our log."""
        application = Application("test")
        service.setServiceParent(application)
        observer = ILogObserver(application, None)
        if observer is not None:
            Logger(observer=observer).info("hello")
        return observer is not None

    @in_reactor
    async def test_the_store_is_ours(self, serve: Serve, folder: Path) -> None:
        """The store is made and locked before the service starts, and free after its end."""
        path = folder / "rooms.db"
        service = serve("--store", "rooms.db")
        assert path.exists()
        with pytest.raises(StoreError, match="another server is using it"):
            StoreFile(str(path)).lock()
        service.factory.open()
        await service.factory.drain()
        other = StoreFile(str(path))
        other.lock()
        other.unlock()

    def test_it_listens(self, serve: Serve, tmp_path: Path) -> None:
        """The service has the settings, and its ports are open before it starts."""
        service = serve("--burst", "7")
        assert IService.providedBy(service)
        assert service.factory.settings.burst == 7
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "chat.sock"))

    def test_the_file_that_twistd_was_given(self, serve: Serve, folder: Path) -> None:
        """`twistd --logfile` names our file, in the form that the settings ask for."""
        assert self.say_hello(serve("--log-format", "json", logfile="chat.log", nodaemon=True))
        assert '"message": "hello"' in (folder / "chat.log").read_text()

    def test_a_daemon_logs_to_twistd_log(self, serve: Serve, folder: Path) -> None:
        """In the background without a file it is twistd.log, as twistd has it."""
        assert self.say_hello(serve(logfile=None, nodaemon=False))
        assert (folder / "twistd.log").read_text().endswith(" info hello\n")

    @pytest.mark.parametrize("logfile", [None, "-"])
    def test_the_foreground_logs_to_standard_output(
        self,
        logfile: str | None,
        serve: Serve,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """With -n, or with - for a file, it is standard output."""
        assert self.say_hello(serve(logfile=logfile, nodaemon=True))
        assert capsys.readouterr().out.endswith(" info hello\n")
        assert not list(folder.iterdir())

    @pytest.mark.parametrize(
        "twistd",
        [
            {},
            {"logfile": "chat.log", "syslog": True},
            {"logfile": "chat.log", "logger": "some.observer"},
            {"log_level": "info"},
        ],
    )
    def test_somebody_elses_log_is_left_alone(
        self, twistd: dict[str, Any], serve: Serve, folder: Path
    ) -> None:
        """The log of twist, syslog, and an observer of the user's are not replaced."""
        assert not self.say_hello(serve(**twistd))
        assert not list(folder.iterdir())

    def test_a_log_that_cannot_be_opened(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A log file that cannot be written is one line that names it, and no port stays open."""
        path = tmp_path / "chat.sock"
        line = refusal(capsys, "--port", f"unix:{path}", logfile="nowhere/chat.log")
        assert line == "twistd chat: --logfile nowhere/chat.log: No such file or directory"
        assert not path.exists()
