"""The slash commands: right use, wrong use, help; every answer exact in form."""

from __future__ import annotations

import inspect
import re
import time

import pytest
from twisted.internet.defer import Deferred

from chatproto.commands import COMMANDS, is_secret, speaks
from chatproto.commands.shared import Command
from chatproto.model import Found
from chatproto.stores import Store
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.testing import START, Client, World


class People:
    """A world with alice and bob, who have nicks, and somebody who has none."""

    def __init__(self) -> None:
        """Let all three come in; nothing is left to read."""
        self.world = World(rate=0)
        self.alice = self.world.named("alice")
        self.bob = self.world.named("bob")
        self.nameless = self.world.client()

    def read(self) -> tuple[str, str, str]:
        """Return what alice, bob and the nameless one have been sent."""
        alice, bob, nameless = (
            client.received().decode() for client in (self.alice, self.bob, self.nameless)
        )
        return alice, bob, nameless


@pytest.fixture
def people() -> People:
    """Alice, bob, and one without a nick, in one room."""
    return People()


def ask(client: Client, line: str) -> str:
    """Send one line and return the answer."""
    client.send(line.encode() + b"\n")
    return client.received().decode()


# All of them.


def test_every_command_is_there() -> None:
    """The commands are those of the protocol, by all of their names."""
    assert sorted(COMMANDS) == sorted(
        [
            *["help", "nick", "msg", "reply", "me", "list", "names", "who", "rooms", "join"],
            *["topic", "whois", "away", "ignore", "unignore", "history", "search"],
            *["register", "login", "logout", "password", "unregister"],
            *["op", "deop", "kick", "ban", "unban", "bans", "mute", "unmute", "announce"],
            *["quit", "exit"],
        ]
    )


@pytest.mark.parametrize(
    "line",
    [
        *["/msg", "/msg bob", "/msg bob  ", "/reply", "/me", "/list x", "/names x", "/who x"],
        *["/rooms x", "/join", "/join a b", "/whois", "/whois a b", "/unignore", "/nick"],
        *["/history x", "/history 0", "/history -1", "/history 1.5", "/history 000"],
        *["/history ²", f"/history {'9' * 5000}"[:4000], "/history 0m", "/history 10s"],
        *["/history 1.5h", "/history -2h", "/history ²h", f"/history {'9' * 10}d"],
        *["/history since", "/history since x", "/history since -1", "/history since 1 2"],
        *["/history since ²", f"/history since {'9' * 19}", "/history 10 20", "/search"],
    ],
)
def test_wrong_use(people: People, line: str) -> None:
    """Wrong use gets one error line that shows the right use, and nobody else notices."""
    answer = ask(people.alice, line)
    name = line[1:].partition(" ")[0]
    shown = {"names": "list", "who": "list"}.get(name, name)
    assert re.fullmatch(rf"! use: /{shown}\b[^\n]*\n", answer)
    assert people.read() == ("", "", "")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/nonsense", "/nonsense"),
        ("/", "/"),
        ("/ list", "/"),
        ("/NONSENSE words", "/NONSENSE"),
        ("/help nonsense", "/nonsense"),
        ("/help /nonsense", "/nonsense"),
        ("/straße", "/straße"),
        ("/" + "x" * 4000, "/" + "x" * 31 + "…"),
    ],
)
def test_unknown_command(people: People, line: str, shown: str) -> None:
    """An unknown command gets one error line that shows how to find the right one."""
    assert ask(people.alice, line) == f"! there is no command {shown}: try /help\n"
    assert people.read() == ("", "", "")


@pytest.mark.parametrize("line", ["/LIST", "/List", "/list ", "/list  "])
def test_case_and_spaces(people: People, line: str) -> None:
    """A command's name counts in any case, and spaces behind it count for nothing."""
    assert ask(people.alice, line) == "-> in lobby: alice, bob, 1 without a nick\n"


# /help


def test_help(people: People) -> None:
    """`/help` lists the use of every command once."""
    answer = ask(people.nameless, "/help")
    lines = answer.splitlines()
    assert lines[0] == "-> commands:"
    assert lines[-1] == "-> a line that starts with // says /"
    shown = [line.split()[1].removeprefix("/") for line in lines[1:-1]]
    first_names: dict[Command, str] = {}
    for name, command in COMMANDS.items():
        first_names.setdefault(command, name)
    assert shown == list(first_names.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_on_a_command(people: People, name: str) -> None:
    """`/help COMMAND` tells the use and what it does, which is the docstring, and other names."""
    doc = inspect.getdoc(COMMANDS[name])
    assert doc
    text, *others = ask(people.nameless, f"/help {name}").split("-> Also: ")
    assert text == "".join(f"-> {line}\n" for line in doc.splitlines() if line)
    same = [f"/{other}" for other in COMMANDS if COMMANDS[other] is COMMANDS[name]]
    assert "".join(others).split() == [other for other in same if other != f"/{name}"]
    assert ask(people.nameless, f"/help /{name.upper()}").startswith(text)


# /nick


def test_nick(people: People) -> None:
    """The first nick is a joining; a new one is a renaming; what one says carries it."""
    assert ask(people.nameless, "/nick carol") == "-> you are now carol\n"
    assert people.read() == ("* carol joined (3 here)\n",) * 2 + ("",)
    assert ask(people.nameless, "/nick Carla") == "-> you are now Carla\n"
    assert people.read() == ("* carol is now Carla\n",) * 2 + ("",)
    people.nameless.send(b"hi\n")
    assert people.read() == ("<Carla> HI\n",) * 2 + ("",)


def test_nick_in_another_case(people: People) -> None:
    """One's own nick can be written in another case; the same nick again changes nothing."""
    assert ask(people.alice, "/nick ALICE") == "-> you are now ALICE\n"
    assert people.read() == ("", "* alice is now ALICE\n", "* alice is now ALICE\n")
    assert ask(people.alice, "/nick ALICE") == "-> you are now ALICE\n"
    assert people.read() == ("", "", "")


@pytest.mark.parametrize("nick", ["bob", "BOB", "Bob"])
def test_nick_taken(people: People, nick: str) -> None:
    """A nick that somebody has, in any case, is refused in words."""
    assert ask(people.alice, f"/nick {nick}") == f"! {nick} is taken\n"
    assert people.read() == ("", "", "")


@pytest.mark.parametrize("nick", ["server", "root", "Admin", "ANONYMOUS", "you"])
def test_nick_reserved(people: People, nick: str) -> None:
    """A reserved nick, in any case, is refused in words."""
    assert ask(people.alice, f"/nick {nick}") == f"! {nick} is a reserved name\n"
    assert people.read() == ("", "", "")


@pytest.mark.parametrize(
    "nick",
    [
        *["two words", "1st", "-x", "_x", "x" * 33, "a,b", "a.b", "<b>", "a:b", "al@ice"],
        *["\u0430lice", "alic\u0435", "\uff41lice", "ali\u200bce", "al\u0131ce"],
        *["\u017fam", "\u212aate", "\xe9lise", "x\u0301"],
    ],
)
def test_nick_refused(people: People, nick: str) -> None:
    """Spaces, other characters and look-alike letters in a nick are refused in words."""
    assert re.fullmatch(r"! a nick [^\n]*\n", ask(people.nameless, f"/nick {nick}"))
    assert people.read() == ("", "", "")


@pytest.mark.parametrize("nick", ["x" * 32, "A-1_b", "Z"])
def test_nick_allowed(people: People, nick: str) -> None:
    """ASCII letters, digits, `_` and `-`, a letter first, at most 32: all that can be a nick."""
    assert ask(people.nameless, f"/nick {nick}") == f"-> you are now {nick}\n"


def test_nick_is_free_again(people: People) -> None:
    """A nick is free as soon as its owner has another, or has left."""
    people.alice.send(b"/nick anne\n")
    people.bob.close()
    assert ask(people.nameless, "/nick Alice").splitlines()[-1] == "-> you are now Alice"
    assert ask(people.nameless, "/nick Bob") == "-> you are now Bob\n"


# /msg, /reply, /away


def test_msg(people: People) -> None:
    """A private message reaches one person; the sender sees that it was sent; it stays as it is."""
    assert ask(people.alice, "/msg BOB  See you ") == "[to bob] See you\n"
    assert people.read() == ("", "[alice] See you\n", "")


def test_msg_to_nobody(people: People) -> None:
    """A private message to somebody who is not here is refused in words."""
    assert ask(people.alice, "/msg dave hi") == "! nobody here is called dave\n"


def test_msg_to_oneself(people: People) -> None:
    """Who writes to itself sees that it was sent."""
    assert ask(people.alice, "/msg alice note") == "[to alice] note\n"


@pytest.mark.parametrize("line", ["/msg bob hi", "/me waves", "/topic cats"])
def test_what_needs_a_nick(people: People, line: str) -> None:
    """Without a nick one cannot write in private, act, or set the topic; the error tells how."""
    assert re.fullmatch(
        r"! .+ needs a nick: choose one with /nick NAME\n", ask(people.nameless, line)
    )
    assert people.read() == ("", "", "")


def test_reply(people: People) -> None:
    """`/reply` goes to whoever wrote in private last."""
    assert ask(people.bob, "/reply hi") == "! nobody has written to you in private yet\n"
    people.nameless.send(b"/nick carol\n")
    people.alice.send(b"/msg bob one\n")
    people.nameless.send(b"/msg bob two\n")
    people.read()
    assert ask(people.bob, "/reply three words here") == "[to carol] three words here\n"
    assert people.read() == ("", "", "[bob] three words here\n")


def test_reply_follows_a_new_name(people: People) -> None:
    """`/reply` goes to the person who wrote, under whatever name it has now."""
    people.alice.send(b"/msg bob hi\n/nick anne\n")
    people.read()
    assert ask(people.bob, "/reply secret") == "[to anne] secret\n"
    assert people.read() == ("[bob] secret\n", "", "")


@pytest.mark.parametrize("leaving", [b"/nick anne\n", b"/quit\n"])
def test_reply_reaches_no_other(people: People, leaving: bytes) -> None:
    """A reply is never read by somebody who has taken the name of the one who wrote."""
    people.alice.send(b"/msg bob hi\n" + leaving)
    people.nameless.send(b"/nick alice\n")
    people.read()
    people.bob.send(b"/reply secret\n")
    assert "secret" not in people.nameless.received().decode()


def test_away(people: People) -> None:
    """Who is away is told of as such to those who write in private or ask, until it is back."""
    assert ask(people.bob, "/away at Lunch") == "-> you are away: at Lunch\n"
    assert sorted(ask(people.alice, "/msg bob hi").splitlines()) == [
        "-> bob is away: at Lunch",
        "[to bob] hi",
    ]
    assert people.read() == ("", "[alice] hi\n", "")
    assert ask(people.alice, "/whois bob").endswith(", away: at Lunch\n")
    assert ask(people.bob, "/away") == "-> you are back\n"
    assert ask(people.alice, "/msg bob hi") == "[to bob] hi\n"
    assert "away" not in ask(people.alice, "/whois bob")


# /me, /list, /rooms


def test_me(people: People) -> None:
    """`/me` says what one does; the sender sees nothing, as with everything that is said."""
    assert ask(people.alice, "/me waves slowly") == ""
    assert people.read() == ("", "* alice WAVES SLOWLY\n", "* alice WAVES SLOWLY\n")


@pytest.mark.parametrize("name", ["list", "names", "who"])
def test_list(people: People, name: str) -> None:
    """`/list` tells who is in the room, with those who have no nick counted."""
    assert ask(people.bob, f"/{name}") == "-> in lobby: alice, bob, 1 without a nick\n"
    people.nameless.close()
    people.alice.send(b"/join den\n")
    people.read()
    assert ask(people.bob, f"/{name}") == "-> in lobby: bob\n"
    assert ask(people.alice, f"/{name}") == "-> in den: alice\n"


def test_long_list() -> None:
    """Of very many names a part is shown and the rest counted: the answer is bounded."""
    world = World()
    first = world.client()
    for number in range(1100):
        address = first.transport.getPeer()
        other = Client(world, world.factory.buildProtocol(address), address)
        other.feed(b"/nick n%d\n" % number)
    world.turn()
    first.received()
    answer = ask(first, "/list")
    names = re.findall(r"\bn\d+\b", answer)
    more = re.search(r"(\d+) more", answer)
    assert more is not None
    assert len(names) + int(more[1]) == 1100
    assert answer.count("\n") == 1


def test_rooms(people: People) -> None:
    """`/rooms` lists the rooms that somebody is in; private messages open none."""
    people.alice.send(b"/msg bob hi\n")
    people.nameless.send(b"/join Den\n")
    people.read()
    assert ask(people.bob, "/rooms") == "-> rooms: lobby (2), den (1)\n"
    people.nameless.close()
    assert ask(people.bob, "/rooms") == "-> rooms: lobby (2)\n"


# /join, /topic


def test_join(people: People) -> None:
    """`/join` moves one to another room, and both rooms hear of it."""
    people.nameless.send(b"/nick carol\n/join den\n")
    people.read()
    assert ask(people.alice, "/join #Den") == "-> you are in den (2 here)\n"
    assert people.read() == ("", "* alice left (1 here)\n", "* alice joined (2 here)\n")
    people.bob.send(b"hello lobby\n")
    people.nameless.send(b"hello den\n")
    assert people.read() == ("<carol> HELLO DEN\n", "", "")


def test_join_without_a_nick(people: People) -> None:
    """Who has no nick moves without a word."""
    assert ask(people.nameless, "/join den") == "-> you are in den (1 here)\n"
    assert people.read() == ("", "", "")


def test_join_where_one_is(people: People) -> None:
    """Joining the room one is in changes nothing."""
    assert ask(people.alice, "/join LOBBY") == "-> you are in lobby (3 here)\n"
    assert people.read() == ("", "", "")


@pytest.mark.parametrize("room", ["a,b", "@1", ".x", "-x", "x" * 51, "\uff44en", "##x", "#"])
def test_join_refused(people: People, room: str) -> None:
    """What cannot be the name of a room is refused in words; one stays where one is."""
    assert re.fullmatch(r"! a room name [^\n]*\n", ask(people.alice, f"/join {room}"))
    assert ask(people.alice, "/list").startswith("-> in lobby: ")


def test_topic(people: People) -> None:
    """Anyone with a nick sets the topic; the room hears of it; who asks or joins is told."""
    assert ask(people.bob, "/topic") == "-> lobby has no topic\n"
    assert ask(people.alice, "/topic Cats and dogs") == "-> lobby is about: Cats and dogs\n"
    assert people.read() == ("", *["* alice set the topic: Cats and dogs\n"] * 2)
    assert ask(people.nameless, "/topic") == "-> lobby is about: Cats and dogs (set by alice)\n"
    people.bob.send(b"/join den\n")
    assert ask(people.bob, "/topic").endswith("-> den has no topic\n")
    assert ask(people.bob, "/join lobby") == "-> you are in lobby (3 here): Cats and dogs\n"


@pytest.mark.parametrize(("command", "limit"), [("/topic", 390), ("/away", 200), ("/quit", 200)])
def test_longest_text(people: People, command: str, limit: int) -> None:
    """A topic, an away text or a farewell that is too long is refused with both numbers."""
    answer = ask(people.alice, f"{command} {'ä' * (limit + 1)}")
    assert re.fullmatch(rf"! [^\n]* {limit} characters, this has {limit + 1}\n", answer)
    assert people.alice.is_connected
    assert people.read() == ("", "", "")
    assert ask(people.alice, f"{command} {'ä' * limit}").startswith("-> ")


# /whois


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (86_399, "23 hours"),
        (86_400, "1 day"),
        (400_000, "4 days"),
    ],
)
def test_whois(people: People, seconds: float, words: str) -> None:
    """`/whois` tells where somebody is, since when, and for how long it has been silent."""
    people.world.wait(seconds)
    people.bob.send(b"hi\n")
    people.read()
    assert ask(people.nameless, "/whois ALICE") == (
        f"-> alice is in lobby, connected for {words}, silent for {words}\n"
    )
    assert ask(people.nameless, "/whois bob") == (
        f"-> bob is in lobby, connected for {words}, silent for 0 s\n"
    )


def test_whois_nobody(people: People) -> None:
    """Nobody is told of who is not here."""
    assert ask(people.alice, "/whois dave") == "! nobody here is called dave\n"


# /ignore, /unignore


def test_ignore(people: People) -> None:
    """What somebody ignored says, does or writes in private is hidden, until it is seen again."""
    assert ask(people.bob, "/ignore") == "-> you ignore nobody\n"
    assert ask(people.bob, "/ignore ALICE") == "-> you no longer see ALICE\n"
    assert ask(people.bob, "/ignore") == "-> you ignore alice\n"
    people.alice.send(b"hi\n/me waves\n/topic cats\n/msg bob hi\n")
    people.nameless.send(b"seen\n")
    assert people.read()[1] == "SEEN\n"
    assert ask(people.bob, "/reply x") == "! nobody has written to you in private yet\n"
    assert ask(people.bob, "/unignore alice") == "-> you see alice again\n"
    people.alice.send(b"hi\n/msg bob hi\n")
    assert people.read()[1] == "<alice> HI\n[alice] hi\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/ignore bob", "! that is you"),
        ("/ignore BOB", "! that is you"),
        ("/ignore two words", "! a nick .+"),
        ("/unignore alice", "! you do not ignore alice"),
    ],
)
def test_ignore_refused(people: People, line: str, error: str) -> None:
    """One cannot ignore oneself or what is no nick, nor stop ignoring whom one does not."""
    assert re.fullmatch(error + "\n", ask(people.bob, line))


def test_ignore_follows_a_new_name(people: People) -> None:
    """A new name does not end being ignored."""
    people.bob.send(b"/ignore alice\n")
    people.alice.send(b"/nick anne\nhi\n/msg bob hi\n")
    people.bob.received()
    people.alice.send(b"again\n")
    assert people.read()[1] == ""


def test_ignore_is_bounded(people: People) -> None:
    """One can ignore 100 people, and is told that it cannot be more."""
    people.bob.send(b"".join(b"/ignore n%d\n" % number for number in range(100)))
    people.world.turn(10)
    assert people.bob.received().count(b"-> you no longer see") == 100
    assert ask(people.bob, "/ignore alice") == "! you can ignore 100 people at most\n"


# /history


def clock(seconds: float = START) -> str:
    """Return the time of day at `seconds`, as the history shows it."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def test_history(people: People) -> None:
    """`/history N` shows the last lines said in the room with their time, the oldest first."""
    fresh = World().client()
    assert ask(fresh, "/history") == "-> nothing has been said here yet\n"
    people.alice.send(b"one\n")
    people.world.wait(3)
    people.nameless.send(b"two\n")
    people.alice.send(b"/me waves\n/msg bob secret\n")
    people.read()
    assert ask(people.bob, "/history 3") == (
        f"-> {clock()} <alice> ONE\n"
        f"-> {clock(START + 3)} TWO\n"
        f"-> {clock(START + 3)} * alice WAVES\n"
    )
    assert ask(people.bob, "/history 1") == f"-> {clock(START + 3)} * alice WAVES\n"


def test_history_has_20_lines(people: People) -> None:
    """Without a number it is 20 lines."""
    for number in range(30):
        people.alice.send(b"line %d\n" % number)
    people.read()
    lines = ask(people.bob, "/history").splitlines()
    assert [line.split()[-1] for line in lines] == [str(number) for number in range(10, 30)]


def test_history_counts_every_line(people: People) -> None:
    """Notices are lines of the room, too; private messages are not."""
    people.alice.send(b"one\n/msg bob secret\n/topic cats\n")
    people.nameless.send(b"/nick carol\n")
    people.bob.close()
    assert people.alice.received()
    answer = ask(people.alice, "/history 4")
    assert answer.replace(f"-> {clock()} ", "").splitlines() == [
        "<alice> ONE",
        "* alice set the topic: cats",
        "* carol joined (3 here)",
        "* bob left (2 here)",
    ]


def test_long_history(people: People) -> None:
    """A history longer than a client takes at once comes whole, before anything else it asked."""
    for number in range(300):
        people.alice.send(b"x" * 1000 + b" %d\n" % number)
    people.read()
    people.bob.stop_reading()
    people.bob.feed(b"/history 300\n/rooms\n")
    people.world.turn(50)
    people.bob.read_on()
    people.world.turn(50)
    lines = people.bob.received().splitlines()
    assert [int(line.split()[-1]) for line in lines[:-1]] == list(range(300))
    assert lines[-1] == b"-> rooms: lobby (3)"


def test_history_hides_the_ignored(people: People) -> None:
    """Who is ignored is not seen in the history either."""
    people.alice.send(b"one\n")
    people.nameless.send(b"two\n")
    people.bob.send(b"/ignore alice\n")
    people.read()
    assert "ONE" not in ask(people.bob, "/history")


def test_history_of_another_room(people: People) -> None:
    """The history is that of the room one is in."""
    people.alice.send(b"one\n")
    people.bob.send(b"/join den\n")
    people.read()
    assert ask(people.nameless, "/join den") == "-> you are in den (2 here)\n"
    people.read()
    assert "ONE" not in ask(people.nameless, "/history")


def history(client: Client, what: str) -> list[str]:
    """Ask for history, and return its lines without their mark."""
    answer = ask(client, f"/history {what}".rstrip())
    return [line.removeprefix("-> ") for line in answer.splitlines()]


def texts(client: Client, what: str) -> list[str]:
    """Ask for history, and return the last word of each of its lines."""
    return [line.split()[-1] for line in history(client, what)]


@pytest.mark.parametrize(
    ("ask_for", "shown"),
    [
        ("1m", []),
        ("10m", ["TODAY"]),
        ("59m", ["TODAY"]),
        ("61m", ["HOUR", "TODAY"]),
        ("2h", ["HOUR", "TODAY"]),
        ("2H", ["HOUR", "TODAY"]),
        ("1d", ["HOUR", "TODAY"]),
        ("2d", ["DAY", "HOUR", "TODAY"]),
        ("999999999d", ["DAY", "HOUR", "TODAY"]),
    ],
)
def test_history_of_the_last_time(people: People, ask_for: str, shown: list[str]) -> None:
    """`/history 10m`, `2h` or `7d` shows what was said in the last minutes, hours or days."""
    for word, seconds in (("day", 86_400), ("hour", 3600 - 300), ("today", 300)):
        people.nameless.send(word.encode() + b"\n")
        people.world.wait(seconds)
    people.read()
    said = [line.split()[-1] for line in history(people.bob, ask_for) if " * " not in line]
    assert said == (shown or ["time"])
    if not shown:
        assert history(people.bob, ask_for) == ["nothing has been said here in that time"]


def test_history_of_another_day(people: People) -> None:
    """What was said on another day is shown with its date."""
    people.alice.send(b"one\n")
    people.world.wait(30 * 86_400)
    day = time.strftime("%Y-%m-%d", time.localtime(START))
    assert ask(people.bob, "/history 1") == f"<alice> ONE\n-> {day} {clock()} <alice> ONE\n"


def test_history_since(people: People) -> None:
    """`/history since ID` shows what came after the event with that id, in this room."""
    start = people.alice.protocol.session.place.room.head
    people.nameless.send(b"one\ntwo\n")
    people.alice.send(b"/msg bob secret\n")
    people.nameless.send(b"three\n")
    people.read()
    assert texts(people.bob, f"since {start}") == ["ONE", "TWO", "THREE"]
    assert texts(people.bob, f"since {start + 1}") == ["TWO", "THREE"]
    assert texts(people.bob, f"SINCE {start + 3}") == ["THREE"]
    assert history(people.bob, f"since {start + 4}") == ["nothing has been said here since"]
    assert history(people.bob, f"since {'9' * 18}") == ["nothing has been said here since"]
    assert texts(people.bob, "since 0")[-3:] == ["ONE", "TWO", "THREE"]


def test_history_in_parts(people: People) -> None:
    """A long history comes 1000 lines at a time, with how to get the rest; nothing is left out."""
    for start in range(0, 2300, 100):
        said = b"".join(b"%d\n" % number for number in range(start, start + 100))
        people.nameless.send(said)
        people.world.turn(20)
    people.read()
    shown: list[int] = []
    ask_for, left = "2300", [1300, 300]
    while left:
        people.bob.send(f"/history {ask_for}\n".encode())
        people.world.turn(20)
        *lines, more = people.bob.received().decode().splitlines()
        assert len(lines) == 1000
        shown += [int(line.split()[-1]) for line in lines]
        found = re.fullmatch(r"-> (\d+) more: /history (since \d+)", more)
        assert found is not None
        assert int(found[1]) == left.pop(0)
        ask_for = found[2]
    shown += map(int, texts(people.bob, ask_for))
    assert shown == list(range(2300))


def test_a_history_of_exactly_one_part(people: People) -> None:
    """Who has been shown everything is not told of more."""
    for _ in range(10):
        people.nameless.send(b"x\n" * 100)
        people.world.turn(20)
    people.read()
    people.bob.send(b"/history 1000\n")
    people.world.turn(20)
    lines = people.bob.received().decode().splitlines()
    assert len(lines) == 1000
    assert "more" not in lines[-1]


def test_history_is_off() -> None:
    """Where nothing is kept there is no history and no search, and it is told why."""
    world = World(history="off", store="memory")
    client = world.client()
    world.client().send(b"one\n")
    client.received()
    answer = "! history is off on this server: nothing is kept\n"
    assert ask(client, "/history") == ask(client, "/search one") == answer


# /search


def found(client: Client, words: str) -> list[str]:
    """Search, and return what is shown, without the mark and the time of day."""
    answer = ask(client, f"/search {words}")
    return [re.sub(r"^-> (\d\d:\d\d:\d\d )?", "", line) for line in answer.splitlines()]


def test_search(people: People) -> None:
    """`/search` finds the lines that have all the words, in any case, in the text or as sender."""
    people.alice.send(b"The cat sat on the mat\n/me pets a cat\n")
    people.nameless.send(b"a dog, a Cat!\nconcatenate\n")
    people.alice.send(b"/topic Cats and mats\n/msg bob secret cat\n")
    people.read()
    assert found(people.bob, "cat") == [
        "<alice> THE CAT SAT ON THE MAT",
        "* alice PETS A CAT",
        "A DOG, A CAT!",
    ]
    assert found(people.bob, "MAT Cat") == ["<alice> THE CAT SAT ON THE MAT"]
    assert found(people.bob, "alice pets") == ["* alice PETS A CAT"]
    assert found(people.bob, "cats*") == ["* alice set the topic: Cats and mats"]
    assert len(found(people.bob, "cat*")) == 4
    assert ask(people.bob, "/search secret") == "-> nothing was found\n"
    assert ask(people.bob, "/search ...") == "-> nothing was found\n"


def test_search_is_in_the_room(people: People) -> None:
    """Only the room that one is in is searched, and notices of coming and going are not."""
    people.alice.send(b"one cat\n/join den\n")
    people.bob.send(b"/join den\n")
    people.read()
    assert found(people.bob, "cat") == ["nothing was found"]
    assert found(people.bob, "alice") == ["nothing was found"]
    assert found(people.nameless, "cat") == ["<alice> ONE CAT"]


def test_search_shows_the_newest(people: People) -> None:
    """Of many lines the newest 50 are shown, the oldest of them first."""
    for number in range(80):
        people.nameless.send(b"cat %d\n" % number)
    people.read()
    lines = found(people.bob, "cat")
    assert lines == [f"CAT {number}" for number in range(30, 80)]


def test_search_hides_the_ignored(people: People) -> None:
    """Who is ignored is not found."""
    people.alice.send(b"one cat\n")
    people.nameless.send(b"two cat\n")
    people.bob.send(b"/ignore alice\n")
    people.read()
    assert found(people.bob, "cat") == ["TWO CAT"]


class LateIndex(MemoryLog):
    """A log whose index lacks the newest lines."""

    def search(self, room: str, words: str, limit: int) -> Deferred[Found]:
        """Find what there is, and tell how much there was no time for."""
        return (
            super()
            .search(room, words, limit)
            .addCallback(lambda found: found._replace(unsearched=7))
        )


def test_search_tells_what_it_has_not_searched() -> None:
    """When the newest lines could not be looked at yet, who searches is told how many they are."""
    world = World(
        make_store=lambda clock, now: Store(LateIndex(clock, now), MemoryDirectory(), LocalNames())
    )
    client = world.client()
    world.client().send(b"a cat\n")
    client.received()
    assert found(client, "cat") == ["A CAT", "the last 7 lines are not in the index yet"]
    assert found(client, "dog") == [
        "nothing was found",
        "the last 7 lines are not in the index yet",
    ]


# /quit


@pytest.mark.parametrize("name", ["quit", "exit", "QUIT"])
def test_quit(people: People, name: str) -> None:
    """`/quit` ends the connection; the room hears the farewell as it is; the name is free."""
    assert ask(people.alice, f"/{name} Good night") == "-> bye\n"
    assert not people.alice.is_connected
    assert people.read() == ("", *["* alice left (2 here): Good night\n"] * 2)
    assert ask(people.nameless, "/nick alice") == "-> you are now alice\n"


def test_quit_in_silence(people: People) -> None:
    """Without words the notice has none, and without a nick there is no notice."""
    assert ask(people.nameless, "/quit") == "-> bye\n"
    assert people.read() == ("", "", "")
    assert ask(people.alice, "/quit") == "-> bye\n"
    assert people.read() == ("", "* alice left (1 here)\n", "")


def test_nothing_counts_after_quit(people: People) -> None:
    """What follows `/quit` is not read; what came before is said."""
    people.alice.send(b"one\n/quit bye\ntwo\n")
    assert people.read() == ("-> bye\n", *["<alice> ONE\n* alice left (2 here): bye\n"] * 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hello", True),
        ("", True),
        ("//list", True),
        ("/me waves", True),
        ("/MSG bob hi", True),
        ("/reply hi\nmore", True),
        ("/list", False),
        ("/nick x", False),
        ("/quit", False),
    ],
)
def test_what_speaks(line: str, says: bool) -> None:
    """What is said to others is told from what only asks the server for something."""
    assert speaks(line) is says


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (" /login alice secret", True),
        ("  /REGISTER secret", True),
        ("//password old new", True),
        (" //unregister secret", True),
        ("/ login alice secret", True),
        ("login alice secret", False),
        ("see /login", False),
        (" /list", False),
        ("//logins", False),
        ("", False),
    ],
)
def test_what_seems_secret(line: str, secret: bool) -> None:
    """A command with a password is known also where something stands before it by mistake."""
    assert is_secret(line) is secret


def test_searches_are_bounded(people: People) -> None:
    """Many words, and beginnings of one letter, would keep the store from everybody else."""
    assert ask(people.alice, "/search " + "cat " * 9) == (
        "! a search has at most 8 words, this has 9\n"
    )
    assert ask(people.alice, "/search cat b*") == (
        "! the beginning of a word needs 2 letters or more\n"
    )
