"""Registered nicks: making them, checking who may have them, and how often one may try.

    /login ─► Tries (per address, per account) ─► checkers (cred) ─► Account
                                                    ├─ our own: the directory, Argon2 in a thread
                                                    └─ or those of `--auth`

A checker is Twisted's own ICredentialsChecker, so an outside one does what ours does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed as CredLoginFailed
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from chatproto.address import Peer
from chatproto.errors import ChatError, CommandError, LoginFailed, NameTaken, NotAllowed, StoreError
from chatproto.model import Account
from chatproto.pacing import TokenBucket
from chatproto.passwords import Hasher, check_password
from chatproto.stores import Directory
from chatproto.text import NICK_LENGTH, check_nick, fold
from chatproto.threads import Threads

TRIES: Final = 5
"""Logins that may be tried at once, from one address and for one account."""

NEXT_TRY: Final = 20.0
"""Seconds until one more may be tried."""

WRONG: Final = "there is no such account, or the password is wrong"

REMEMBERED: Final = 10_000
"""Addresses and accounts whose tries are counted; the oldest are forgotten."""

log = Logger()


class Tries:
    """Counts how often somebody tries."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Use `seconds` as the time."""
        self._seconds = seconds
        self._buckets: OrderedDict[tuple[str, ...], TokenBucket] = OrderedDict()

    def take(self, *keys: tuple[str, ...]) -> None:
        """Count a try under each of the keys; raises `LoginFailed` when one has had too many."""
        wait = max(self._bucket(key).take() for key in keys)
        if wait:
            raise LoginFailed(f"too many tries: the next one is in {wait:.0f} s")

    def give_back(self, *keys: tuple[str, ...]) -> None:
        """It was right: do not count it."""
        for key in keys:
            self._bucket(key).charge(-1)

    def _bucket(self, key: tuple[str, ...]) -> TokenBucket:
        bucket = self._buckets.pop(key, None) or TokenBucket(TRIES, 1 / NEXT_TRY, self._seconds)
        self._buckets[key] = bucket
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket


@implementer(ICredentialsChecker)
class AccountChecker:
    """Checks a nick and a password against the accounts of the directory."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, directory: Directory, hasher: Hasher, threads: Threads) -> None:
        """Compare with the hashes in `directory`, in one of `threads`."""
        self._directory = directory
        self._hasher = hasher
        self._threads = threads

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Return the folded nick; fails with UnauthorizedLogin, after the same time whether there
        is no such account or the password is another.
        """
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, username: bytes, password: bytes) -> bytes | tuple[()]:
        name = fold(username.decode())
        account = await self._directory.account(name)
        secret = account.secret if account is not None else ""
        word = password.decode()
        if not await self._threads.run(self._hasher.verify, secret, word):
            raise UnauthorizedLogin
        if account is not None and self._hasher.is_outdated(secret):
            with suppress(ChatError):  # or at the next login
                fresh = await self._threads.run(self._hasher.hash, word)
                await self._directory.change_account(name, secret=fresh)
        return name.encode()


class Accounts:
    """The accounts of the server."""

    def __init__(
        self,
        directory: Directory,
        threads: Threads,
        seconds: Callable[[], float],
        now: Callable[[], float],
        *,
        hasher: Hasher,
        operators: Sequence[str] = (),
        checkers: Sequence[Any] = (),
        allows_plaintext: bool = False,
    ) -> None:
        """Keep accounts in `directory`; `seconds` tells any time and `now` the Unix time.

        `operators` are the nicks of accounts that may moderate. With `checkers` passwords are
        checked by those, and accounts are made where they look. With `allows_plaintext` passwords
        may come over connections that others can read.
        """
        self.allows_plaintext = allows_plaintext
        self.are_elsewhere = bool(checkers)
        """Whether passwords are kept by somebody else."""
        self._directory = directory
        self._threads = threads
        self._now = now
        self._hasher = hasher
        self._operators = frozenset(map(fold, operators))
        self._checkers = checkers or (AccountChecker(directory, hasher, threads),)
        self._tries = Tries(seconds)

    def may_moderate(self, account: Account) -> bool:
        """Tell whether this account is an operator's."""
        return account.is_operator or fold(account.nick) in self._operators

    async def find(self, nick: str) -> Account | None:
        """Return the account of a nick, None when there is none."""
        return await self._directory.account(fold(nick))

    async def register(self, nick: str, password: str, peer: Peer) -> Account:
        """Make an account; raises `NameTaken`, `NotAllowed` or `CommandError`."""
        self._need_our_own()
        check_password(password)
        if fold(nick) in self._operators and not peer.is_local:
            raise NotAllowed(
                f"{nick} is an operator's: register it from the server's own machine, "
                "or with chat-admin"
            )
        if not peer.is_local:
            self._tries.take(("register", _origin(peer)))
        secret = await self._threads.run(self._hasher.hash, password)
        account = Account(nick, secret, False, self._now(), _origin(peer))
        if not await self._directory.add_account(account):
            raise NameTaken(f"{nick} is registered already")
        return account

    async def check(self, nick: str, password: str, peer: Peer) -> Account:
        """Return the account of who knows its password; raises `LoginFailed` or `BadName`."""
        name, origin = fold(nick), _origin(peer)
        account = await self._directory.account(name)
        # Others' tries must not keep the owner out, who comes from where he was before.
        is_known = account is not None and account.address == origin
        typed = name[: 2 * NICK_LENGTH]  # it may be anything, of any length
        keys: list[tuple[str, ...]] = [("owner", name, origin) if is_known else ("account", typed)]
        if not peer.is_local:  # else one here could keep everyone out who comes through a proxy
            keys.append(("address", origin))
        self._tries.take(*keys)
        credentials = UsernamePassword(nick.encode(), password.encode())
        for checker in self._checkers:
            try:
                await maybeDeferred(checker.requestAvatarId, credentials)
            except (CredLoginFailed, UnicodeError):
                continue
            except ChatError:
                self._tries.give_back(*keys)
                raise
            except Exception:
                self._tries.give_back(*keys)
                log.failure("a password cannot be checked")
                raise CommandError("passwords cannot be checked now: try again later") from None
            self._tries.give_back(*keys)
            return await self._known(nick, origin)
        # Not what was typed as a nick: some type their password there.
        log.info(
            "wrong password for {account} from {address}",
            event="wrong-password",
            account=account.nick if account is not None else "an unknown account",
            address=peer.shown,
        )
        raise LoginFailed(WRONG)

    async def change_password(self, nick: str, old: str, new: str, peer: Peer) -> None:
        """Give an account another password; raises `LoginFailed` or `CommandError`."""
        self._need_our_own()
        check_password(new)
        await self.check(nick, old, peer)
        secret = await self._threads.run(self._hasher.hash, new)
        await self._directory.change_account(fold(nick), secret=secret)

    async def check_own(self, nick: str, password: str, peer: Peer) -> None:
        """Raise `LoginFailed` or `CommandError` unless this is the password of an account that is
        kept here.
        """
        self._need_our_own()
        await self.check(nick, password, peer)

    def remove(self, nick: str) -> Deferred[bool]:
        """Remove an account; tell whether there was one."""
        return self._directory.remove_account(fold(nick))

    async def set_operator(self, nick: str, is_operator: bool) -> Account:
        """Let an account moderate, or no longer; raises `CommandError` when there is none."""
        account = await self.find(nick)
        if account is None:
            raise CommandError(f"{nick} has no account")
        if not is_operator and fold(nick) in self._operators:
            raise CommandError(f"{nick} is an operator by the server's settings")
        await self._directory.change_account(fold(nick), is_operator=is_operator)
        return account._replace(is_operator=is_operator)

    async def _known(self, nick: str, origin: str) -> Account:
        """Return the account of somebody whose password was right, who is now at `origin`."""
        account = await self._directory.account(fold(nick))
        if account is None and not self.are_elsewhere:  # removed while it was checked
            raise LoginFailed(WRONG)
        if account is None:  # known to an outside checker only
            account = Account(check_nick(nick), "", False, self._now(), origin)
            await self._directory.add_account(account)
        elif account.address != origin:
            with suppress(StoreError):  # a full disk keeps nobody out
                await self._directory.change_account(fold(nick), address=origin)
        return account._replace(address=origin)

    def _need_our_own(self) -> None:
        if self.are_elsewhere:
            raise NotAllowed("accounts are kept outside of this server: ask whoever runs it")


def _origin(peer: Peer) -> str:
    return peer.counted or "local"
