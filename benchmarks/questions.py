"""What is asked of a server with many lines, and how long the answer takes.

Every question is asked over a connection of its own, by a client that has been heard already. The
server reads a client's next line when it has answered the last one; so behind the question goes a
command that does not exist, and what is told about that ends the answer.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import BenchmarkError
from benchmarks.filling import COMMON, RARE, SELDOM, Filled, rare_lines

_SECONDS = 30.0
"""No answer takes so long."""

_END = b"that-was-all"
_LABEL = re.compile(rb"\bN\d{7}\b")


@dataclass(frozen=True)
class Question:
    """One command, and what has to come of it."""

    about: str
    command: str
    begins: tuple[int, ...] = ()
    """The numbers of the lines that the answer has to begin with."""
    ends: tuple[int, ...] = ()
    """The same for its end."""
    least: int = 2
    """How many lines it has to have."""

    def is_answered_by(self, numbers: Sequence[int]) -> bool:
        """Whether these lines are the ones that were asked for."""
        first, last = len(self.begins), len(numbers) - len(self.ends)
        return (
            len(numbers) >= self.least
            and tuple(numbers[:first]) == self.begins
            and tuple(numbers[last:]) == self.ends
            and all(one < following for one, following in pairwise(numbers))
        )


@dataclass(frozen=True)
class Answer:
    """What came, and when: times from sending the question, in milliseconds."""

    numbers: tuple[int, ...]
    """The numbers of the lines."""
    first_ms: float
    """Until the first line was there."""
    whole_ms: float
    """Until the last one was."""


def questions(lines: int, filled: Filled) -> tuple[Question, ...]:
    """What is asked of a store that was filled with so many lines."""
    middle, last = lines // 2, lines - 1
    hello, world = COMMON
    rare = tuple(rare_lines(lines))
    return (
        Question("the last lines", "/history", ends=(last - 1, last)),
        Question("two hours", "/history 2h"),
        Question(
            "all after the one in the middle",
            f"/history since {filled.middle_id}",
            begins=(middle + 1, middle + 2),
        ),
        Question("a rare word", f"/search {RARE}", begins=rare, ends=rare),
        Question("a common word", f"/search {hello}", ends=(last - last % 2,)),
        Question("two common words", f"/search {hello} {world}", ends=(last - last % 6,)),
        Question(
            "two common words, seldom together",
            f"/search {' '.join(SELDOM)}",
            begins=rare,
            ends=rare,
        ),
        Question("a common beginning of words", "/search ba*"),
    )


def ask(port: int, question: Question) -> Answer:
    """Asks a server on 127.0.0.1; an answer that is not right raises `BenchmarkError`."""
    try:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"/%b\n" % _END)
            _read(client)
            asked = time.perf_counter()
            client.sendall(b"%b\n/%b\n" % (question.command.encode(), _END))
            answer = _read(client, asked)
    except TimeoutError:
        raise BenchmarkError(f"{question.command}: no answer within {_SECONDS:.0f} s.") from None
    except OSError as error:
        raise BenchmarkError(f"{question.command}: {error}.") from None
    if not question.is_answered_by(answer.numbers):
        some = ", ".join(map(str, answer.numbers[:3])) or "none"
        some += f" … {answer.numbers[-1]}" if len(answer.numbers) > 3 else ""
        raise BenchmarkError(
            f"{question.command}: the answer is wrong; it has {len(answer.numbers)} lines: {some}."
        )
    return answer


def _read(client: socket.socket, asked: float = 0.0) -> Answer:
    """Reads up to the end of an answer."""
    received = bytearray()
    first, ended = 0.0, False
    while not (ended and received.endswith(b"\n")):
        got = client.recv(1 << 18)
        now = time.perf_counter()
        if not got:
            raise BenchmarkError("The server closed the connection of who asked it.")
        seen = len(received)
        received += got
        first = first or (now if b"\n" in got else 0.0)
        ended = ended or received.find(_END, max(0, seen - len(_END))) >= 0
    numbers = tuple(int(found[1:]) for found in _LABEL.findall(received))
    return Answer(numbers, (first - asked) * 1e3, (now - asked) * 1e3)
