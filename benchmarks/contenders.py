"""The servers that are compared: how each is started, joined, and spoken to.

A contender holds no state: it answers questions. To measure another store or another protocol,
add one class here (most often a subclass of `Chat`) and name it in `cases`.

The load says lines of `LINE_BYTES` bytes, a newline included. A server may dress them up; all
that it delivers in one case must be equally long, so that received lines can be counted by their
bytes.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import BenchmarkError

LINE_BYTES = 64
"""Length of a line as it is said, newline included."""

_CHECKOUT = Path(__file__).resolve().parent.parent
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class Contender(ABC):
    """One kind of server, as the benchmark needs to know it."""

    name: str
    """How the table calls it."""

    senders_receive = True
    """Whether who says something is a member that gets what the others say."""

    stores = False
    """Whether it keeps what is said in its folder, which then has to be on a disk."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The command line; the server is started inside this empty folder."""

    @abstractmethod
    def port(self, output: str) -> int | None:
        """The port on 127.0.0.1 as soon as the server's output shows that it listens."""

    def environment(self) -> dict[str, str]:
        """The server's environment: ours, and a path to this checkout."""
        path = [str(_CHECKOUT), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}

    def tls(self, folder: Path) -> ssl.SSLContext | None:
        """What a client wraps its connection in, if anything."""
        return None

    def join(self, client: int) -> bytes:
        """What a client with this number sends first in order to listen."""
        return b""

    def enter(self, client: int) -> bytes:
        """What a client with this number sends first in order to speak."""
        return self.join(client)

    def say(self, line: bytes) -> bytes:
        """The bytes that say the line."""
        return line

    @abstractmethod
    def delivered(self, client: int, line: bytes) -> bytes:
        """The bytes that everyone else receives when this client has said the line."""

    def stored(self, folder: Path) -> int:
        """How many different lines are kept in the folder of a server that has ended."""
        return 0


class Chat(Contender):
    """Our server with anonymous clients, storing in memory; pacing is off."""

    name = "chatproto"
    options: tuple[str, ...] = ("--rate", "0", "--store", "memory")

    def command(self, folder: Path) -> list[str]:
        twistd = "from twisted.scripts.twistd import run; run()"
        start = [sys.executable, "-c", twistd, "-n", "--pidfile=", "chat"]
        return [*start, "--port", self.endpoint(folder), *self.options]

    def endpoint(self, folder: Path) -> str:
        """Twisted's description of a free port; the backlog is for many who join at once."""
        return "tcp:0:interface=127.0.0.1:backlog=1024"

    def port(self, output: str) -> int | None:
        found = _LISTENING.search(output)
        return int(found[1]) if found else None

    def delivered(self, client: int, line: bytes) -> bytes:
        return line.upper()


class NamedChat(Chat):
    """Our server with every client named; nicks are equally long."""

    name = "chatproto, named"

    def join(self, client: int) -> bytes:
        return b"/nick n%04d\n" % client

    def delivered(self, client: int, line: bytes) -> bytes:
        return b"<n%04d> %b" % (client, line.upper())


class TlsChat(Chat):
    """Our server behind TLS, with a certificate made for this one start."""

    name = "chatproto, TLS"

    def endpoint(self, folder: Path) -> str:
        write_certificate(folder)
        return "ssl:0:privateKey=key.pem:certKey=cert.pem:interface=127.0.0.1:backlog=1024"

    def tls(self, folder: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(folder / "cert.pem"))


class SqliteChat(Chat):
    """Our server with everything stored in a file before it is delivered, as out of the box."""

    name = "chatproto, SQLite"
    options = ("--rate", "0", "--store", "chat.db")
    stores = True

    def stored(self, folder: Path) -> int:
        # Of our own, not with the server's code: that is what is to be shown.
        count = "SELECT count(DISTINCT text) FROM events WHERE kind = 'said'"
        try:
            with closing(sqlite3.connect(folder / "chat.db")) as connection:
                return int(connection.execute(count).fetchone()[0])
        except sqlite3.Error as error:
            raise BenchmarkError(f"The store of {self.name} cannot be read: {error}.") from None


class ChatOn(Chat):
    """Our server on a store that is there already, and stays there."""

    def __init__(self, store: Path) -> None:
        self.options = ("--rate", "0", "--store", str(store))


class PlainLoop(Contender):
    """The loop of `sendLine` in `plain_loop.py`."""

    name = "plain loop"

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("plain_loop.py"))]

    def port(self, output: str) -> int | None:
        found = _LISTENING.search(output)
        return int(found[1]) if found else None

    def delivered(self, client: int, line: bytes) -> bytes:
        return line.upper()


class RedisPubSub(Contender):
    """Redis, nothing written to disk, one channel; who publishes does not listen."""

    name = "Redis Pub/Sub"
    senders_receive = False

    def command(self, folder: Path) -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "port": [str(port)],
            "bind": ["127.0.0.1"],
            # Else it turns away 127.0.0.2, which the idle clients use beside 127.0.0.1.
            "protected-mode": ["no"],
            "save": [""],
            "appendonly": ["no"],
            "tcp-backlog": ["1024"],
            "maxclients": ["15000"],
            "client-output-buffer-limit": ["pubsub", "0", "0", "0"],
        }
        flags = [part for key, values in settings.items() for part in (f"--{key}", *values)]
        return ["redis-server", *flags]

    def port(self, output: str) -> int | None:
        found = re.search(r"port=(\d+)", output)
        return int(found[1]) if found and "Ready to accept connections" in output else None

    def join(self, client: int) -> bytes:
        return b"*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\nlobby\r\n"

    def enter(self, client: int) -> bytes:
        return b""

    def say(self, line: bytes) -> bytes:
        return b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nlobby\r\n$%d\r\n%b\r\n" % (len(line), line)

    def delivered(self, client: int, line: bytes) -> bytes:
        return b"*3\r\n$7\r\nmessage\r\n$5\r\nlobby\r\n$%d\r\n%b\r\n" % (len(line), line)


def redis_version() -> str | None:
    """The version of the installed `redis-server`, or nothing when there is none."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    told = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    found = re.search(r"v=(\S+)", told)
    return found[1] if found else "of unknown version"


def write_certificate(folder: Path) -> None:
    """Writes `key.pem` and `cert.pem`: self-signed, for 127.0.0.1, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
