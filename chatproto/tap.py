"""``twistd chat``: from flags to settings to the service (the name is Twisted's for such modules).

Everything that can be wrong is found here, before the daemon is on its own: one line on standard
error, exit status 1, no pid file and no log file left behind.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.cred import strcred
from twisted.cred.credentials import IUsernamePassword
from twisted.python import usage

import chatproto
from chatproto.errors import ChatError, StartError
from chatproto.factory import ChatFactory
from chatproto.listening import close_now, open_ports
from chatproto.logs import Logging
from chatproto.service import ChatService
from chatproto.settings import SETTINGS, Settings, load
from chatproto.stores.choice import file_for, store_for


def _describe(name: str) -> str:
    """Return the help text of a setting, with its default."""
    setting = SETTINGS[name]
    text: str = setting.metadata["help"]
    default = setting.default
    return text.replace("%s", f"{default:g}" if isinstance(default, float) else str(default))


def _is_switch(name: str) -> bool:
    return SETTINGS[name].default is False


class Options(usage.Options, strcred.AuthOptionMixin):
    """The flags; `settings` holds what they and the other sources come to."""

    synopsis = "[options]"
    longdesc = (
        "A chat server: every line that a client sends goes to everyone else in its room. "
        "Join with nc, telnet or openssl s_client, and type /help. Every option can also be set "
        "as CHAT_NAME in the environment (CHAT_MAX_LINE=512) or in a TOML file (max-line = 512): "
        "the option goes over the environment, the environment over the file."
    )
    optFlags = [  # noqa: RUF012 - Twisted's interface
        [name, None, _describe(name)] for name in SETTINGS if _is_switch(name)
    ]
    optParameters = [  # noqa: RUF012 - Twisted's interface
        *(
            [name, None, None, _describe(name)]
            for name in SETTINGS
            if not _is_switch(name) and not SETTINGS[name].metadata["many"]
        ),
        ["config", "c", None, "a TOML file with settings [CHAT_CONFIG]"],
    ]
    supportedInterfaces = (IUsernamePassword,)
    settings: Settings
    log_path: str | None = None
    """Where our log goes when it is a file."""
    owner: tuple[int, int] = (-1, -1)
    """The user and group that our files are given to, -1 for our own."""
    owns_log: bool = False
    """Whether the log is ours: not twist's, not syslog, not an observer of the user's."""

    def opt_port(self, value: str) -> None:
        self.setdefault("port", []).append(value)

    opt_port.__doc__ = _describe("port")
    opt_p = opt_port

    def opt_operator(self, value: str) -> None:
        self.setdefault("operator", []).append(value)

    opt_operator.__doc__ = _describe("operator")

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"chatproto {chatproto.__version__}")
        sys.exit(0)

    def parseArgs(self, *arguments: str) -> None:
        """There is nothing but options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the flags; a wrong one ends the process with one line."""
        try:
            super().parseOptions(options)
        except (usage.UsageError, ChatError) as error:
            sys.exit(f"twistd chat: {error}")

    def postOptions(self) -> None:
        """Put the settings together, and see where the log goes."""
        # A switch that was not given is 0, which is no answer.
        given = {
            name: self[name]
            for name in SETTINGS
            if self.get(name) is not None and not (_is_switch(name) and not self[name])
        }
        config = self["config"] or os.environ.get("CHAT_CONFIG")
        self.settings = load(given, os.environ, config)
        twistd: Any = getattr(self, "parent", None)
        if twistd is None or "logfile" not in twistd:
            return
        uid, gid = twistd.get("uid"), twistd.get("gid")
        self.owner = (-1 if uid is None else uid, -1 if gid is None else gid)
        if twistd.get("pidfile"):
            _check_folder("--pidfile", twistd["pidfile"])
        if not twistd.get("syslog") and not twistd.get("logger"):
            self.owns_log = True
            path = twistd["logfile"]
            if path == "-" and not twistd.get("nodaemon"):
                raise usage.UsageError("--logfile -: a daemon has no standard output; use -n")
            if path != "-" and (path or not twistd.get("nodaemon")):
                self.log_path = path or "twistd.log"


def _check_folder(flag: str, path: str) -> None:
    """Find out now what twistd would end with a traceback for."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise StartError(f"{flag} {path}: {os.strerror(errno.ENOENT)}")
    if not os.access(folder, os.W_OK):
        raise StartError(f"{flag} {path}: {os.strerror(errno.EACCES)}")


def makeService(options: Options) -> IService:
    """Return the service, with its ports and its log open; raises SystemExit if they cannot be."""
    from twisted.internet import reactor

    settings = options.settings
    file = file_for(settings)
    try:
        store = store_for(settings, reactor, time.time, file)
        factory = ChatFactory(
            settings, store=store, checkers=options.get("credCheckers", ()), opens_itself=False
        )
        ports = open_ports(reactor, settings.port, factory)
        try:
            if file is not None:
                file.prepare(options.owner)
            logging = Logging(options.log_path, settings.log_format, options.owner)
        except ChatError:
            close_now(reactor, ports)
            raise
    except ChatError as error:
        if file is not None:
            file.abandon()
        sys.exit(f"twistd chat: {error}")
    return ChatService(reactor, factory, ports, logging if options.owns_log else None)
