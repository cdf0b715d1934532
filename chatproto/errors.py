"""What can go wrong, as a tree.

    ChatError
    ├── SettingError         a setting has a wrong value, or is unknown
    ├── StartError           the server cannot start: a busy port, an unreadable file
    ├── TextError            what was sent may not be said
    │   ├── NotUtf8
    │   ├── LineTooLong
    │   └── NothingToSay
    ├── NameRefused          a nick or room name that may not be used
    │   ├── BadName
    │   ├── NameReserved
    │   └── NameTaken
    ├── CommandError         a command that cannot be carried out
    │   ├── UnknownCommand
    │   ├── WrongUse
    │   ├── NeedsNick
    │   ├── NoSuchNick
    │   ├── NotAllowed        only operators may, or this client was forbidden to
    │   └── LoginFailed       a wrong password, or no such account
    ├── StoreError           what was to be kept cannot be stored, or read, now
    └── StreamError          bytes that no client of ours sends: the connection ends

Each has a stable ``code`` for programs and a sentence for people, which is its text. A protocol
turns the error into its own form once, at its edge.
"""

from __future__ import annotations

from typing import ClassVar


class ChatError(Exception):
    """The base of all errors that are told to somebody in words.

    The only argument is the sentence, without a full stop.
    """

    code: ClassVar[str] = "error"

    @property
    def sentence(self) -> str:
        """What happened, for people."""
        return str(self)


class SettingError(ChatError):
    """A setting has a wrong value, or there is no such setting."""

    code = "setting"


class StartError(ChatError):
    """The server cannot start as it was told to."""

    code = "start"


class TextError(ChatError):
    """What was sent may not be said."""

    code = "text"


class NotUtf8(TextError):
    """Bytes that are not UTF-8 (RFC 3629)."""

    code = "not-utf8"


class LineTooLong(TextError):
    """A line above the limit of bytes."""

    code = "line-too-long"


class NothingToSay(TextError):
    """Nothing was left once control characters were taken out."""

    code = "nothing-to-say"


class NameRefused(ChatError):
    """A nick or room name that may not be used."""

    code = "name"


class BadName(NameRefused):
    """A name with characters, or of a length, that names do not have."""

    code = "bad-name"


class NameReserved(NameRefused):
    """A name that could be taken for the server's own."""

    code = "name-reserved"


class NameTaken(NameRefused):
    """A name that somebody else has."""

    code = "name-taken"


class CommandError(ChatError):
    """A command that cannot be carried out."""

    code = "command"


class UnknownCommand(CommandError):
    """There is no such command."""

    code = "unknown-command"


class WrongUse(CommandError):
    """The command is used otherwise: the sentence shows how."""

    code = "wrong-use"


class NeedsNick(CommandError):
    """Only a client with a nick may do this."""

    code = "needs-nick"


class NoSuchNick(CommandError):
    """Nobody here has that nick."""

    code = "no-such-nick"


class NotAllowed(CommandError):
    """Only some may do this, and this client is not one of them."""

    code = "not-allowed"


class LoginFailed(CommandError):
    """There is no such account, or the password is wrong: it is never told which."""

    code = "login-failed"


class StoreError(ChatError):
    """The store cannot do now what it was asked to do; nothing of it was done."""

    code = "store"


class StreamError(ChatError):
    """Bytes that no client of ours sends; the connection cannot go on."""

    code = "stream"
