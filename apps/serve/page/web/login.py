"""Who may use a page that is not for everybody: a password, or a proxy that has checked already."""

import asyncio
import hmac
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from itsdangerous import BadSignature, URLSafeTimedSerializer

from apps.serve.page.config import PageConfig, login_password
from apps.serve.page.store.database import Database, lock_counts, new_id, now_s
from apps.serve.page.store.limits import check_password
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import WrongPassword

COOKIE = "cria_login"
_WEEK_S = 7 * 24 * 3600
_SHUT_S, _MAX_SHUT = 5.0, 10_000
"""how long a process refuses a network's passwords without another look into the database, and of
how many networks it knows that"""


class _Shut(NamedTuple):
    """What a network is told that has had too many wrong passwords."""

    until_s: float
    """of this process' clock"""
    told: str
    retry_after_s: float | None


class Door:
    """Open where neither is configured. Raises ConfigError when the password is not set.

    The limits of wrong passwords are for those who stand outside: a cookie that one has earned is
    looked at without them.
    """

    def __init__(self, page: PageConfig, secret: str, database: Database) -> None:
        self._limits, self._database = page.limits, database
        self._shut: dict[str, _Shut] = {}
        """by network"""
        self._header = page.login_header.lower().encode()
        self._password = login_password(page).encode()
        # Another password ends every login that the old one opened.
        self._signer = URLSafeTimedSerializer(secret.encode() + self._password, salt="login")
        self._flags = "; Secure" if page.origin.startswith("https:") else ""

    def is_open_for(self, headers: Mapping[bytes, bytes], peer_is_proxy: bool) -> bool:
        if self._header and peer_is_proxy and headers.get(self._header):
            return True
        if self._password and self._is_logged_in(headers):
            return True
        return not (self._header or self._password)

    async def opened_by(self, password: str, network: str) -> str:
        """The cookie that a right password earns; "" for a wrong one. Raises Refusal where too
        many were wrong."""
        if not self._password:
            return ""
        shut = self._shut.get(network)
        if shut is not None and time.monotonic() < shut.until_s:
            raise Refusal(shut.told, shut.retry_after_s)
        try:
            return await asyncio.to_thread(self._tried, password, network)
        except Refusal as refusal:
            if len(self._shut) >= _MAX_SHUT:
                self._shut.clear()
            until_s = time.monotonic() + _SHUT_S
            self._shut[network] = _Shut(until_s, str(refusal), refusal.retry_after_s)
            raise

    def _tried(self, password: str, network: str) -> str:
        with self._database.read() as session:  # a flood of them takes nobody's turn to write
            check_password(session, network, self._limits)
        is_right = hmac.compare_digest(password.encode(), self._password)
        with self._database.write() as session:
            lock_counts(session)
            check_password(session, network, self._limits)  # others came in the meantime
            if not is_right:
                row = WrongPassword(id=new_id(), address=network, created_s=now_s())
                session.add(row)
                return ""
        value = str(self._signer.dumps("in"))
        return f"{COOKIE}={value}; Path=/; Max-Age={_WEEK_S}; HttpOnly; SameSite=Lax{self._flags}"

    def _is_logged_in(self, headers: Mapping[bytes, bytes]) -> bool:
        cookies = SimpleCookie()
        try:
            cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
            return self._signer.loads(cookies[COOKIE].value, max_age=_WEEK_S) == "in"
        except (BadSignature, CookieError, KeyError, ValueError):
            return False
