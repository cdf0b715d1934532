"""Starting: where settings come from, and what a wrong one gets."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chatproto import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Command, Start


@pytest.fixture
def busy() -> Iterator[int]:
    """The number of a port of loopback that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_help(command: Command) -> None:
    """--help shows every setting with its default, and where else it can come from."""
    done = command("chat", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    for setting in dataclasses.fields(Settings):
        shown = re.search(rf"--{setting.name.replace('_', '-')}[= ].*?(?= -|$)", words)
        assert shown, setting.name
        default: Any = setting.default
        if setting.name == "port":
            default = default[0]
        if default not in ("", (), False):
            plain = f"{default:g}" if isinstance(default, float) else default
            assert f"[{plain}]" in shown.group(), setting.name
    assert "CHAT_" in words
    assert "TOML" in words
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "A chat server" in " ".join(command("--help").stdout.split())


@pytest.mark.parametrize("sources", [("file",), ("file", "env"), ("file", "env", "flag"), ("env",)])
def test_sources(start: Start, folder: Path, sources: tuple[str, ...]) -> None:
    """A flag goes over the environment, and the environment over the file."""
    (folder / "chat.toml").write_text('motd = "from the file"\ntransform = "none"\n')
    given = {name: f"from the {name}" for name in sources}
    environ = {"CHAT_MOTD": given["env"]} if "env" in given else {}
    flags = [*(["--config=chat.toml"] if "file" in given else [])]
    flags += ["--motd", given["flag"]] if "flag" in given else []
    server = start(*flags, environ=environ)
    alice, bob = server.connect(), server.connect()
    assert alice.line() == bob.line() == f"* from the {sources[-1]}\n".encode()
    alice.send(b"hello\n")
    assert bob.line() == (b"hello\n" if "file" in sources else b"HELLO\n")


def test_ports_of_a_file(start: Start, folder: Path) -> None:
    """The ports may be a list in the file, and the file may come from the environment."""
    ports = ["tcp:0:interface=127.0.0.1", "unix:chat.sock"]
    (folder / "chat.toml").write_text(f"port = {ports}\n")
    server = start(port=None, environ={"CHAT_CONFIG": "chat.toml"})
    one, other = server.connect(), server.connect_unix(folder / "chat.sock")
    one.send(b"hello\n")
    assert other.line() == b"HELLO\n"


FILES = {
    "unknown.toml": b"colour = 'red'\n",
    "broken.toml": b"rate = = 1\n",
    "wrong.toml": b"rate = 'fast'\n",
    "latin1.toml": b"motd = 'gr\xfc\xdfe'\n",
    "latin1.txt": b"gr\xfc\xdfe\n",
    "empty.pem": b"",
    "foreign.db": b"dear reader, " * 1000,
}

WRONG = {
    "no such flag": (["--colour", "red"], {}, "--colour"),
    "an argument": (["12345"], {}, "argument"),
    "no value": (["--rate"], {}, "--rate"),
    "not a number": (["--rate", "fast"], {}, "--rate"),
    "not finite": (["--rate", "nan"], {}, "--rate"),
    "out of bounds": (["--max-line", "1"], {}, "--max-line"),
    "not a choice": (["--nicknames", "some\ttimes"], {}, "--nicknames"),
    "in the environment": ([], {"CHAT_MAX_CLIENTS": "-1"}, "--max-clients"),
    "an unknown key": (["--config", "unknown.toml"], {}, "colour"),
    "not TOML": (["--config", "broken.toml"], {}, "--config"),
    "TOML not UTF-8": (["--config", "latin1.toml"], {}, "--config"),
    "wrong in the file": (["--config", "wrong.toml"], {}, "--rate"),
    "no such file": (["--config", "nowhere.toml"], {}, "--config"),
    "a folder as file": (["--config", "."], {}, "--config"),
    "no such motd": (["--motd", "@nowhere.txt"], {}, "--motd"),
    "a folder as motd": (["--motd", "@."], {}, "--motd"),
    "motd not UTF-8": (["--motd", "@latin1.txt"], {}, "--motd"),
    "another kind of store": (["--store", "redis://localhost"], {}, "--store"),
    "no such folder for it": (["--store", "nowhere/chat.db"], {}, "--store"),
    "a folder as store": (["--store", "."], {}, "--store"),
    "a foreign store": (["--store", "foreign.db"], {}, "--store"),
    "retaining in memory": (["--store", "memory", "--retain", "90d"], {}, "--retain"),
    "replaying nothing": (["--history", "off", "--replay", "5"], {}, "--replay"),
    "no such checker": (["--auth", "nonsense:x"], {}, "nonsense"),
    "no such endpoint": (["--port", "nonsense:1"], {}, "--port nonsense:1"),
    "no such port": (["--port", "65536"], {}, "--port"),
    "no port in it": (["--port", "tcp:chat"], {}, "--port tcp:chat"),
    "no such address": (["--port", "tcp:0:interface=192.0.2.99"], {}, "--port tcp:0:interface"),
    "no certificate": (["--port", "ssl:0:privateKey=no.pem"], {}, "--port ssl:0:privateKey=no.pem"),
    "empty certificate": (["--port", "ssl:0:privateKey=empty.pem"], {}, "--port ssl:0"),
    "no such folder": (["--port", "unix:nowhere/chat.sock"], {}, "--port unix:nowhere/chat.sock"),
    "no systemd": (["--port", "systemd:domain=INET:index=0"], {}, "--port systemd:domain=INET"),
}


def files(folder: Path) -> list[str]:
    """Return the names of the files in `folder`."""
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("case", "daemon"),
    [(case, True) for case in WRONG]
    + [(case, False) for case in ("no such flag", "an unknown key", "no such endpoint")],
)
def test_wrong(command: Command, folder: Path, case: str, daemon: bool) -> None:
    """A wrong setting gets one line that names it and exit status 1; nothing is left behind."""
    flags, environ, name = WRONG[case]
    for file, content in FILES.items():
        (folder / file).write_bytes(content)
    before = files(folder)
    twistd = [] if daemon else ["-n"]
    done = command(*twistd, "chat", "--port", "unix:chat.sock", *flags, environ=environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("twistd chat: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert name in done.stderr
    assert files(folder) == before


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
@pytest.mark.parametrize("kind", ["tcp", "number", "unix"])
def test_busy(
    command: Command, start: Start, folder: Path, busy: int, kind: str, daemon: bool
) -> None:
    """A port that is in use is told of, and the other ports are closed again."""
    if kind == "unix":
        start(port="unix:busy.sock")
    port = {
        "tcp": f"tcp:{busy}:interface=127.0.0.1",
        "number": str(busy),
        "unix": "unix:busy.sock",
    }[kind]
    before = files(folder)
    twistd = ["--logfile=new.log", "--pidfile=new.pid", *([] if daemon else ["-n"])]
    chat = ["chat", "--store", "chat.db-other", "--port", "unix:chat.sock"]
    done = command(*twistd, *chat, "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"twistd chat: --port {port}: the port is in use already\n"
    assert files(folder) == before


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_busy_store(command: Command, start: Start, folder: Path, daemon: bool) -> None:
    """A store that another server uses is told of, and that server goes on with it."""
    server = start()
    before = sorted(os.listdir(folder))
    twistd = ["--logfile=new.log", "--pidfile=new.pid", *([] if daemon else ["-n"])]
    done = command(*twistd, "chat", "--port", "unix:chat.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"twistd chat: --store {folder}/chat.db: another server is using it\n"
    assert sorted(os.listdir(folder)) == before
    alice, bob = server.connect(), server.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
@pytest.mark.parametrize("path", ["nowhere/chat.log", "."])
def test_unwritable_log(command: Command, folder: Path, path: str, daemon: bool) -> None:
    """A log file that cannot be opened is told of in the same way."""
    twistd = [f"--logfile={path}", *([] if daemon else ["-n"])]
    done = command(*twistd, "chat", "--port", "unix:chat.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"twistd chat: --logfile {path}: .+\n", done.stderr)
    assert files(folder) == []


def test_log_survives_a_failed_start(command: Command, folder: Path, busy: int) -> None:
    """What an earlier server has logged is left as it was by one that cannot start."""
    log = folder / "chat.log"
    log.write_text("yesterday\n")
    done = command("--logfile=chat.log", "chat", "--port", f"tcp:{busy}:interface=127.0.0.1")
    assert done.returncode == 1
    assert log.read_text() == "yesterday\n"


@pytest.mark.parametrize("port", ["tcp:{}:interface=127.0.0.1", "{}"], ids=["tcp", "number"])
def test_restart_at_once(start: Start, port: str) -> None:
    """After kill -9 with clients connected the same port can be served again at once."""
    killed = start(port=port.format(0))
    client = killed.connect()
    number = killed.port
    killed.signal(signal.SIGKILL)
    killed.wait_end()
    assert client.rest() == b""
    server = start(port=port.format(number))
    assert server.port == number
    alice, bob = server.connect(), server.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_history_after_a_restart(start: Start, daemon: bool) -> None:
    """What was seen before kill -9 is in the history afterwards; so is what was said since."""
    killed = start(daemon=daemon)
    alice, bob = killed.connect(), killed.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    killed.signal(signal.SIGKILL)
    killed.wait_end()
    server = start()
    carol, dave = server.connect(), server.connect()
    carol.send(b"again\n")
    assert dave.line() == b"AGAIN\n"
    carol.send(b"/history\n")
    assert [line.split()[-1] for line in carol.lines(2)] == [b"HELLO", b"AGAIN"]


@pytest.mark.parametrize("flags", [("--store", "memory"), ("--history", "off")])
def test_no_history_after_a_restart(start: Start, folder: Path, flags: tuple[str, ...]) -> None:
    """Where nothing is to be kept, nothing that was said is in any file."""
    server = start(*flags)
    alice, bob = server.connect(), server.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    for number in (signal.SIGTERM, signal.SIGKILL):
        server.signal(number)
        server.wait_end()
        for path in folder.glob("chat.db*"):
            assert b"HELLO" not in path.read_bytes()
        server = start(*flags)
    assert (folder / "chat.db").exists() == (flags[0] == "--history")


def test_restart_on_a_unix_socket(start: Start, folder: Path) -> None:
    """The socket file that a killed server has left is taken over by the next one."""
    killed = start(port="unix:chat.sock:mode=660")
    killed.signal(signal.SIGKILL)
    killed.wait_end()
    assert (folder / "chat.sock").exists()
    server = start(port="unix:chat.sock:mode=660")
    alice, bob = (server.connect_unix(folder / "chat.sock") for _ in range(2))
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
