"""Who is asking: a signed cookie, and the address that the configured proxies vouch for."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from itsdangerous import BadSignature, URLSafeSerializer

from apps.serve.admission.peer import without_port
from apps.serve.page.config import PageConfig
from apps.serve.page.store.conversations import Asker
from apps.serve.page.store.database import new_id
from apps.serve.page.store.limits import address_block

COOKIE = "cria_visitor"
_YEAR_S = 365 * 24 * 3600


class Visitors:
    """Reads and writes the cookie; `secret` is the same in every process."""

    def __init__(self, page: PageConfig, secret: str) -> None:
        self._page = page
        self._signer = URLSafeSerializer(secret, salt="visitor")
        self._secret = secret.encode()
        self._proxies = [ipaddress.ip_network(b, strict=False) for b in page.trusted_proxies]

    def asker(self, headers: Mapping[bytes, bytes], peer: str) -> Asker | None:
        """None without a cookie of ours."""
        cookies = SimpleCookie()
        try:
            cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
            visitor_id = self._signer.loads(cookies[COOKIE].value)
        except (BadSignature, CookieError, KeyError, ValueError):
            return None
        return Asker(visitor_id=str(visitor_id), address=self.network(headers, peer))

    def network(self, headers: Mapping[bytes, bytes], peer: str) -> str:
        """A keyed digest of the address' block: enough to count by, too little to find a person
        with."""
        block = address_block(self.address(headers, peer)).encode()
        return hmac.new(self._secret, block, hashlib.sha256).hexdigest()[:16]

    def address(self, headers: Mapping[bytes, bytes], peer: str) -> str:
        """The last address in X-Forwarded-For that is not one of our own proxies."""
        given = headers.get(b"x-forwarded-for", b"").decode("latin-1")
        chain = [part.strip() for part in given.split(",") if part.strip()]
        address = peer
        while self.is_proxy(address) and chain:
            address = without_port(chain.pop())
        return address

    def new_cookie(self) -> bytes:
        value = str(self._signer.dumps(new_id()))
        # A page in another site's frame gets no cookie that is Lax.
        if self._page.frame_ancestors:
            where = "SameSite=None; Secure; Partitioned"
        else:
            where = "SameSite=Lax" + ("; Secure" if self._page.origin.startswith("https:") else "")
        return f"{COOKIE}={value}; Path=/; Max-Age={_YEAR_S}; HttpOnly; {where}".encode()

    def is_proxy(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in block for block in self._proxies)
