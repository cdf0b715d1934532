r"""A real server and real clients, for the end-to-end tests.

    server = start("--motd", "welcome")       # a twistd of its own, in the foreground
    alice, bob = server.connect(), run("nc", "127.0.0.1", server.port)
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"

Whatever a test starts is ended after it, and an error in the log of a server fails the test. A
wait always has a deadline. With ``COVERAGE_PROCESS_START`` in the environment the servers measure
their coverage.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import pytest

import chatproto

DEADLINE: Final = 15.0
"""Seconds after which what was waited for will not come."""

LOCAL: Final = "tcp:0:interface=127.0.0.1"
"""An endpoint on a free port of loopback."""

_RUN: Final = "from twisted.scripts.twistd import run; run()"

_MEASURE: Final = """
import coverage
coverage.process_startup()
from twisted.application import app
_end = app._exitWithSignal
def _save_and_end(number):
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.stop()
        measured.save()
    _end(number)
app._exitWithSignal = _save_and_end
"""

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
    """Return the first true result of `condition`, for what announces itself in no other way."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return result


class Stream:
    """What comes out of a connection or a program."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._buffer = bytearray()
        self._ended = False

    def line(self) -> bytes:
        """Return the next line."""
        return self.until(b"\n")

    def lines(self, count: int) -> list[bytes]:
        """Return the next `count` lines."""
        return [self.line() for _ in range(count)]

    def until(self, end: bytes) -> bytes:
        """Return everything up to and with `end`."""
        deadline = time.monotonic() + DEADLINE
        searched = 0
        while (found := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end) + 1)
            assert self._more(deadline), f"it ended without {end!r}: {self._shown}"
        return self._take(found + len(end))

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        deadline = time.monotonic() + DEADLINE
        while len(self._buffer) < count:
            assert self._more(deadline), f"it ended before {count} bytes: {self._shown}"
        return self._take(count)

    def rest(self) -> bytes:
        """Return everything up to the end."""
        deadline = time.monotonic() + DEADLINE
        while self._more(deadline):
            pass
        return self._take(len(self._buffer))

    def _more(self, deadline: float) -> bool:
        if self._ended:
            return False
        try:
            data = self._receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise AssertionError(f"nothing more within {DEADLINE:g} s: {self._shown}") from None
        self._buffer += data
        self._ended = not data
        return bool(data)

    def _receive(self, seconds: float) -> bytes:
        """Return what comes next, empty at the end; raises TimeoutError."""
        raise NotImplementedError

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    @property
    def _shown(self) -> str:
        return repr(bytes(self._buffer[-500:]))


class Conn(Stream):
    """A client made of a bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Speak over `sock`, which is connected."""
        super().__init__()
        self.socket = sock

    def send(self, data: bytes) -> None:
        """Send `data`."""
        self.socket.settimeout(DEADLINE)
        self.socket.sendall(data)

    def finish(self) -> None:
        """Send no more; still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close in order."""
        self.socket.close()

    def reset(self) -> None:
        """Break the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    @property
    def address(self) -> str:
        """How the server's log shows this client."""
        if self.socket.family == socket.AF_UNIX:
            return "unix"
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _receive(self, seconds: float) -> bytes:
        self.socket.settimeout(seconds or 0.001)
        try:
            return self.socket.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLEOFError):
            return b""


class Program(Stream):
    """A client program, spoken to through pipes or through a terminal."""

    def __init__(self, argv: list[str], cwd: Path, *, terminal: bool) -> None:
        """Start `argv` in the folder `cwd`."""
        super().__init__()
        self._terminal = terminal
        if terminal:
            self._fd, far = pty.openpty()
            self.process = subprocess.Popen(
                argv, cwd=cwd, stdin=far, stdout=far, stderr=far, start_new_session=True
            )
            os.close(far)
        else:
            self.process = subprocess.Popen(
                argv,
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert self.process.stdout is not None
            self._fd = self.process.stdout.fileno()

    def send(self, data: bytes) -> None:
        """Type `data`."""
        if self._terminal:
            os.write(self._fd, data)
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def finish(self) -> None:
        """End its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def status(self) -> int:
        """Wait until it has ended; return its exit status."""
        return self.process.wait(DEADLINE)

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        if self._terminal:
            os.close(self._fd)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _receive(self, seconds: float) -> bytes:
        if not select.select([self._fd], [], [], seconds)[0]:
            raise TimeoutError
        try:
            return os.read(self._fd, 1 << 16)
        except OSError:  # a terminal whose program has ended
            return b""


class Server:
    """A twistd that serves a chat."""

    def __init__(self, pid: int, folder: Path, log: Path, process: subprocess.Popen[bytes] | None):
        """Look after the process `pid`, a child of ours when `process` is given."""
        self.pid = pid
        self.folder = folder
        self.log = log
        self.ports: list[int] = []
        """The numbers of its ports."""
        self._process = process
        self._pidfd = os.pidfd_open(pid)
        self._conns: list[Conn] = []
        self._expected: list[str] = []

    # Clients.

    @property
    def port(self) -> int:
        """The number of its first port."""
        return self.ports[0]

    def connect(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        receive_buffer: int = 0,
        tls: bool = False,
        wait: bool = True,
    ) -> Conn:
        """Return a new client; it is in the room, unless told not to `wait` for that."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return self._connect(family, (host, port or self.port), receive_buffer, tls, wait)

    def connect_unix(self, path: Path) -> Conn:
        """Return a new client through a Unix socket."""
        return self._connect(socket.AF_UNIX, str(path), 0, False, True)

    def _connect(
        self, family: int, address: Any, receive_buffer: int, tls: bool, wait: bool
    ) -> Conn:
        sock = socket.socket(family)
        conn = Conn(sock)
        self._conns.append(conn)
        unix = len(self.lines("accepted from unix")) if family == socket.AF_UNIX else 0
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(DEADLINE)
        sock.connect(address)
        words = f"accepted from {conn.address}"
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            conn.socket = context.wrap_socket(sock)
        if wait:
            self.wait_for(words, unix + 1)
        return conn

    # The log.

    def wait_until_listening(self, ports: int = 1) -> None:
        """Wait until its ports are open, and read from the log which they are."""
        self.wait_for("listening on", ports)
        self.ports = [int(port) for port in re.findall(r"listening on \S+:(\d+)", self.text())]

    def text(self) -> str:
        """Return the log so far."""
        return self.log.read_text() if self.log.exists() else ""

    def lines(self, words: str) -> list[str]:
        """Return the lines of the log so far that have `words` in them."""
        return [line for line in self.text().splitlines() if words in line]

    def wait_for(self, words: str, count: int = 1) -> str:
        """Wait until the log has `count` lines with `words`, and return the last of them."""

        def found() -> list[str]:
            return self.lines(words)[count - 1 : count]

        try:
            return wait_until(found, f"{words!r} in the log")[0]
        except AssertionError as error:
            raise AssertionError(f"{error}; it has:\n{self.text()[-4000:]}") from None

    def wait_for_file(self) -> None:
        """Wait until there is a log file."""
        wait_until(self.log.exists, f"{self.log}")

    def expect_error(self, words: str) -> None:
        """An error with `words` in it may be in the log."""
        self._expected.append(words)

    # The process.

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._pidfd, number)

    def is_running(self) -> bool:
        """Tell whether it has not ended."""
        return not self.ends_within(0)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, and tell whether it came."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def wait_end(self) -> None:
        """Wait for its end."""
        assert self.ends_within(DEADLINE), f"it goes on:\n{self.text()[-4000:]}"
        if self._process is not None:
            self._process.wait()

    @property
    def open_files(self) -> int:
        """How many file descriptors it has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def memory(self) -> int:
        """How many bytes of memory it has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """End it and its clients, whatever they are doing."""
        for conn in self._conns:
            conn.close()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if not self.is_running():
                break
            with contextlib.suppress(ProcessLookupError):
                self.signal(number)
            self.ends_within(3.0)
        if self._process is not None:
            self._process.wait()

    def let_go(self) -> None:
        """End it, and forget it."""
        self.end()
        os.close(self._pidfd)

    def check(self) -> None:
        """Fail the test if something unexpected is in the log or was printed."""
        errors = [
            line
            for line in self.text().splitlines()
            if re.search(r"(?i)^\S+ (error|critical) |\"level\": \"(error|critical)\"", line)
            or "Traceback" in line
        ]
        left = [line for line in errors if not any(words in line for words in self._expected)]
        assert not left, "errors were logged:\n" + self.text()
        printed = self.folder / "stderr"
        assert not printed.exists() or not printed.read_text(), printed.read_text()


class Start(Protocol):
    """Starts a server; the flags are those of ``twistd chat``."""

    def __call__(
        self,
        *flags: str,
        port: str | None = LOCAL,
        daemon: bool = False,
        twistd: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        before: str = "",
        stdin: int = subprocess.DEVNULL,
    ) -> Server:
        """Listen on `port` (None: say nothing of one); `twistd` are flags in front of ``chat``.

        `before` is run in the new process before twistd is, whose input is the file `stdin`.
        """


class Command(Protocol):
    """Runs ``twistd`` where it ends by itself."""

    def __call__(
        self, *argv: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``twistd`` with `argv` to its end."""


class Run(Protocol):
    """Starts a client program; skips the test where it is not installed, except in CI."""

    def __call__(self, name: str, *arguments: object, terminal: bool = False) -> Program:
        """Start the program `name`, with pipes or in a `terminal`."""


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    root = str(Path(chatproto.__file__).parents[1])
    path = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = f"{root}{os.pathsep}{path}" if path else root
    if "COVERAGE_PROCESS_START" in environ:
        for name, value in (
            ("COVERAGE_PROCESS_START", environ["COVERAGE_PROCESS_START"]),
            ("COVERAGE_FILE", environ.get("COVERAGE_FILE", ".coverage")),
        ):
            environ[name] = os.path.abspath(value)
    return environ | dict(given or {})


def _twistd(*argv: str, before: str = "") -> list[str]:
    measure = _MEASURE if "COVERAGE_PROCESS_START" in os.environ else ""
    return [sys.executable, "-c", f"{measure}\n{before}\n{_RUN}", *argv]


def _end_daemon(pidfile: Path) -> None:
    """End the daemon of this pidfile, if it is one that the test has left running."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pidfile.read_text())
        if Path(f"/proc/{pid}/cwd").resolve() == pidfile.parent.resolve():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the servers of a test run."""
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture
def command(folder: Path) -> Iterator[Command]:
    """Run twistd where it is expected to end by itself."""

    def run(
        *argv: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _twistd(*argv),
            cwd=folder,
            env=_environment(environ),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    yield run
    for pidfile in folder.glob("*.pid"):
        _end_daemon(pidfile)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start servers, end them after the test, and look for errors in their logs."""
    servers: list[Server] = []

    def start_one(
        *flags: str,
        port: str | None = LOCAL,
        daemon: bool = False,
        twistd: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        before: str = "",
        stdin: int = subprocess.DEVNULL,
    ) -> Server:
        chat = ["chat", *(("--port", port) if port else ()), *flags]
        if daemon:
            server = _daemon(_twistd(*_DAEMON, *twistd, *chat, before=before), environ)
        else:
            argv = _twistd("-n", "--pidfile=", *twistd, *chat, before=before)
            named = [flag.partition("=")[2] for flag in twistd if flag.startswith("--logfile=")]
            server = _foreground(argv, environ, stdin, *named)
        servers.append(server)
        server.wait_until_listening(max(1, chat.count("--port")))
        return server

    def _foreground(
        argv: list[str], environ: Mapping[str, str] | None, stdin: int, named_log: str = ""
    ) -> Server:
        printed = folder / f"log{len(servers)}"
        with printed.open("wb") as out, (folder / "stderr").open("ab") as err:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env=_environment(environ),
                stdin=stdin,
                stdout=out,
                stderr=err,
            )
        log = folder / named_log if named_log else printed
        return Server(process.pid, folder, log, process)

    def _daemon(argv: list[str], environ: Mapping[str, str] | None) -> Server:
        started = subprocess.run(
            argv,
            cwd=folder,
            env=_environment(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
        pid = int((folder / "chat.pid").read_text())
        return Server(pid, folder, folder / "chat.log", None)

    yield start_one
    for server in servers:
        server.let_go()
    _end_daemon(folder / "chat.pid")
    for server in servers:
        server.check()


_DAEMON: Final = ("--pidfile=chat.pid", "--logfile=chat.log")


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """Start client programs, and end them after the test."""
    programs: list[Program] = []

    def start_one(name: str, *arguments: object, terminal: bool = False) -> Program:
        argv = [_installed(name), *map(str, arguments)]
        program = Program(argv, folder, terminal=terminal)
        programs.append(program)
        return program

    yield start_one
    for program in programs:
        program.end()


def _installed(name: str) -> str:
    path = shutil.which("nc.openbsd" if name == "nc" else name)
    if path is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PEM file of a key and a certificate for localhost."""
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    key = path.with_name("key.pem")
    argv = [
        _installed("openssl"),
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(path)),
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=DEADLINE)
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.fixture
def tls_port(certificate: Path) -> str:
    """An endpoint with TLS on a free port of loopback."""
    return f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}"


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    """Wait for what announces itself in no other way."""
    return wait_until


class Again(Protocol):
    """Starts one server after another; the flags are those of ``twistd chat``."""

    def __call__(self, *flags: str) -> Server:
        """Start the next one, on a free port of loopback."""


_FORK: Final = """
import json, os, signal, sys
import chatproto.tap, twisted.internet.epollreactor
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.scripts.twistd import run
[*getPlugins(IServiceMaker)]
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        break
    print(pid, flush=True)
else:
    sys.exit()
log, *sys.argv[1:] = json.loads(line)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY, 0o600), 1)
run()
"""


@pytest.fixture
def again(folder: Path) -> Iterator[Again]:
    """Start servers out of a process that has loaded the program once, which takes a tenth of the
    time; look after them as `start` does.
    """
    servers: list[Server] = []
    loaded: list[subprocess.Popen[str]] = []

    def start_one(*flags: str) -> Server:
        if not loaded:
            with (folder / "stderr").open("ab") as err:
                process = subprocess.Popen(
                    [sys.executable, "-c", _FORK],
                    cwd=folder,
                    env=_environment(None),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                    text=True,
                )
            loaded.append(process)
        (parent,) = loaded
        log = folder / f"log{len(servers)}"
        assert parent.stdin is not None
        assert parent.stdout is not None
        argv = [str(log), "-n", "--pidfile=", "chat", "--port", LOCAL, *flags]
        parent.stdin.write(f"{json.dumps(argv)}\n")
        parent.stdin.flush()
        server = Server(int(parent.stdout.readline()), folder, log, None)
        servers.append(server)
        server.wait_until_listening()
        return server

    yield start_one
    for server in servers:
        server.let_go()
    for process in loaded:
        process.communicate()
    for server in servers:
        server.check()
