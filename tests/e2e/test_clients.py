"""The programs that people have: nc, telnet, openssl, curl."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Run, Start

HAS_IPV6 = socket.has_dualstack_ipv6()


def test_two_nc(start: Start, run: Run) -> None:
    """Two nc clients see each other's lines uppercased, and not one byte more."""
    server = start()
    alice = run("nc", "-N", "127.0.0.1", server.port)
    bob = run("nc", "-N", "127.0.0.1", server.port)
    server.wait_for("accepted", 2)
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    bob.send("straße\n\n".encode())
    assert alice.lines(2) == [b"STRASSE\n", b"\n"]
    alice.send(b"no line end")
    alice.finish()
    assert bob.line() == b"NO LINE END\n"
    bob.finish()
    assert (alice.rest(), bob.rest()) == (b"", b"")
    assert (alice.status(), bob.status()) == (0, 0)


def test_last_line(start: Start, run: Run) -> None:
    """What nc sends last is said, with and without a line end, before it goes."""
    server = start()
    reader = server.connect()
    for words in (b"one", b"two\n", b"three\nfour"):
        client = run("nc", "-N", "127.0.0.1", server.port)
        client.send(words)
        client.finish()
        assert client.rest() == b""
    assert reader.lines(4) == [b"ONE\n", b"TWO\n", b"THREE\n", b"FOUR\n"]


def test_chat_with_names(start: Start, run: Run) -> None:
    """A person with nc and one with telnet can chat, name themselves, whisper, list and leave."""
    server = start()
    alice = run("nc", "127.0.0.1", server.port)
    server.wait_for("accepted", 1)
    bob = run("telnet", "127.0.0.1", server.port, terminal=True)
    bob.until(b"Escape character")
    server.wait_for("accepted", 2)
    alice.send(b"/nick alice\n")
    assert alice.line() == b"-> you are now alice\n"
    bob.until(b"* alice joined (2 here)\r")
    bob.send(b"/nick bob\n")
    bob.until(b"-> you are now bob\r")
    assert alice.line() == b"* bob joined (2 here)\n"
    bob.send(b"hello\n")
    assert alice.line() == b"<bob> HELLO\n"
    alice.send(b"/msg bob just you\n")
    bob.until(b"[alice] just you\r")
    assert alice.line() == b"[to bob] just you\n"
    bob.send(b"/me waves\n")
    assert alice.line() == b"* bob WAVES\n"
    bob.send(b"/list\n")
    bob.until(b"-> in lobby: alice, bob\r")
    bob.send(b"/quit see you\n")
    bob.until(b"-> bye\r")
    assert b"Connection closed by foreign host" in bob.rest()
    assert alice.line() == b"* bob left (1 here): see you\n"


def test_telnet_commands(start: Start, run: Run) -> None:
    """What telnet itself puts into the stream, CRLF and commands, is not part of a line."""
    server = start()
    reader = server.connect()
    telnet = run("telnet", "127.0.0.1", server.port, terminal=True)
    telnet.until(b"Escape character")
    for command in (b"ayt", b"nop", b"do echo", b"wont echo"):
        reader.send(b"ready\n")
        telnet.until(b"READY\r")
        telnet.send(b"\x1d")
        telnet.until(b"telnet> ")
        telnet.send(b"send " + command + b"\n")
        reader.send(b"go on\n")
        telnet.until(b"GO ON\r")
        telnet.send("grüße\n".encode())
        assert reader.line() == "GRÜSSE\n".encode()


def test_line_ends(start: Start) -> None:
    """Everyone is answered with the line end that he uses; IAC and split packets are no matter."""
    server = start()
    unix, windows = server.connect(), server.connect()
    for byte in b"\xff\xfb\x1f\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0hel\xff\xf1lo \xe2\x82\xac\r\n":
        windows.send(bytes([byte]))
    assert unix.line() == "HELLO €\n".encode()
    unix.send(b"one\r\ntwo\nthree")
    assert windows.lines(2) == [b"ONE\r\n", b"TWO\r\n"]
    unix.send(b" and more\n")
    assert windows.line() == b"THREE AND MORE\r\n"
    unix.close()
    windows.send(b"/quit\r\n")
    assert windows.rest() == b"-> bye\r\n"


def test_openssl(start: Start, run: Run, certificate: Path, tls_port: str) -> None:
    """Over TLS it is the same room: openssl s_client and nc talk to each other."""
    server = start("--port", tls_port)
    plain_port, port = server.ports
    nc = run("nc", "-N", "127.0.0.1", plain_port)
    verified = ("-CAfile", certificate, "-verify_return_error", "-verify_hostname", "localhost")
    openssl = run("openssl", "s_client", "-quiet", *verified, "-connect", f"127.0.0.1:{port}")
    server.wait_for("accepted", 2)
    openssl.until(b"verify return:1\n")
    openssl.send(b"/nick tess\n")
    assert openssl.line() == b"-> you are now tess\n"
    assert nc.line() == b"* tess joined (2 here)\n"
    nc.send("größe\n".encode())
    assert openssl.line() == "GRÖSSE\n".encode()
    openssl.send(b"/quit\n")
    assert openssl.line() == b"-> bye\n"
    openssl.rest()
    assert nc.line() == b"* tess left (1 here)\n"
    nc.finish()
    assert nc.rest() == b""


def test_unix(start: Start, run: Run, folder: Path) -> None:
    """Through a Unix socket, with the mode it was given, and gone when the server is."""
    server = start("--port", "unix:chat.sock:mode=660")
    assert (folder / "chat.sock").stat().st_mode & 0o777 == 0o660
    other = server.connect()
    nc = run("nc", "-U", "-N", "chat.sock")
    server.wait_for("accepted from unix")
    nc.send(b"hello\n")
    assert other.line() == b"HELLO\n"
    other.send(b"hi\n")
    assert nc.line() == b"HI\n"
    server.end()
    assert not (folder / "chat.sock").exists()


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_number_is_dual_stack(start: Start) -> None:
    """A port given as a number is reached over IPv4 and IPv6."""
    server = start(port="0")
    four, six = server.connect(), server.connect(host="::1")
    four.send(b"hello\n")
    assert six.line() == b"HELLO\n"
    six.send(b"hi\n")
    assert four.line() == b"HI\n"


def test_several_ports(start: Start) -> None:
    """All ports of a server lead into the same room."""
    server = start("--port", "tcp:0:interface=127.0.0.1", "--port", "unix:chat.sock")
    first, second = (server.connect(port) for port in server.ports)
    third = server.connect_unix(server.folder / "chat.sock")
    first.send(b"hello\n")
    assert second.line() == third.line() == b"HELLO\n"


def test_socket_activation(start: Start, folder: Path) -> None:
    """A socket that systemd has opened is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        before = (
            "import os; os.dup2(0, 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='chat')"
        )
        server = start(port="systemd:domain=INET:index=0", before=before, stdin=listener.fileno())
    assert server.port == number
    alice, bob = server.connect(), server.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"


@pytest.mark.parametrize(
    "arguments",
    [(), ("--data-binary", "/nick evil\nsay this\n" * 500), ("-X", "PUT", "-d", "x"), ("-I",)],
    ids=["GET", "POST", "PUT", "HEAD"],
)
def test_curl(start: Start, run: Run, arguments: tuple[str, ...]) -> None:
    """A web request is refused in HTTP, and nothing of it is said in the room."""
    server = start()
    reader, witness = server.connect(), server.connect()
    url = f"http://127.0.0.1:{server.port}/say%20this"
    curl = run("curl", "-s", "-o", "page", "-w", "%{http_code}", *arguments, url)
    assert (curl.rest(), curl.status()) == (b"404", 0)
    if "-I" not in arguments:
        assert b"chat" in (server.folder / "page").read_bytes()
    server.wait_for("HTTP is not spoken here")
    witness.send(b"first\n")
    assert reader.line() == b"FIRST\n"


def test_browser_keeps_sending(start: Start) -> None:
    """A POST whose body comes later and in pieces can say nothing either."""
    server = start()
    reader, witness = server.connect(), server.connect()
    browser = server.connect()
    browser.send(b"POST /")
    browser.send(b"x HTTP/1.1\r\nHost: chat\r\nContent-Length: 6000\r\n\r\n")
    assert browser.until(b"\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    browser.send(b"say this\r\n" * 600)
    browser.rest()
    witness.send(b"first\n")
    assert reader.line() == b"FIRST\n"


def test_wrong_protocols(start: Start, run: Run) -> None:
    """TLS, SSH and IRC clients on a plain port are refused in their own language."""
    server = start()
    reader, witness = server.connect(), server.connect()
    openssl = run("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}")
    assert b"alert handshake failure" in openssl.rest()
    assert openssl.status() != 0
    for words, answer in (
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"This port does not speak SSH\r\n"),
        (b"NICK eve\r\nUSER eve 0 * :Eve\r\n", b"ERROR :This port does not speak IRC\r\n"),
    ):
        client = server.connect()
        client.send(words)
        assert client.until(b"\n") == answer
        client.finish()
        assert client.rest() == b""
    witness.send(b"first\n")
    assert reader.line() == b"FIRST\n"


def test_address_of_unix_client(start: Start, folder: Path) -> None:
    """The name that a Unix client has bound is bytes of a client: the log does not show them."""
    server = start(port="unix:chat.sock")
    client = socket.socket(socket.AF_UNIX)
    client.bind(os.fsencode(folder) + b"/\x1b]0;evil\x07")
    with client:
        client.connect(str(folder / "chat.sock"))
        server.wait_for("accepted from unix")
    server.wait_for("closed")
    assert b"\x1b" not in server.log.read_bytes()
