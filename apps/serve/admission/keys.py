"""The keys that clients may use: those of the settings and those of a file, which may change.

The file is what `python -m apps.serve keys` writes, see keys_file.py. It is read again within
RELOAD_S of a change. While it cannot be read, or is gone, the keys that were read last hold.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable

from apps.serve.admission.keys_file import read_keys_again
from apps.serve.config import ApiKey, GatewayConfig

logger = logging.getLogger("ray.serve")

RELOAD_S = 1.0
_READ_TIMEOUT_S = 5.0
"""of a disk that does not answer; the keys that were read last hold then"""


def digest(key: str) -> str:
    """Of a key as it stands in a header: its bytes, as sent."""
    return hashlib.sha256(key.strip().encode("latin-1")).hexdigest()


class KeyRing:
    """Finds the owner of a key. Its file is read in a thread while requests come; only one that
    comes after a pause waits for that, for the file may have changed in the meantime."""

    def __init__(self, settings: Callable[[], GatewayConfig]) -> None:
        self._settings = settings
        self._from_file: tuple[ApiKey, ...] = ()
        self._uri = ""
        self._as_of_s = float("-inf")
        """when the last look at the file began"""
        self._reading: asyncio.Task[None] | None = None
        self._told = ""
        """why it could not be read"""

    async def find(self, given: str) -> ApiKey | None:
        """Every key is compared, so that the time it takes says nothing about which one matched."""
        await self._refresh()
        wanted, found, now = digest(given), None, time.time()
        for key in (*self._settings().api_keys, *self._from_file):
            is_it = hmac.compare_digest(wanted, key.sha256)
            if is_it and key.holds_at(now):
                found = key
        return found

    async def _refresh(self) -> None:
        uri = self._settings().keys_file
        if uri != self._uri:
            self._uri, self._from_file = uri, ()
            self._reading, self._as_of_s = None, float("-inf")
        age_s = time.monotonic() - self._as_of_s
        if not uri or age_s < RELOAD_S:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(uri))
        if age_s > 2 * RELOAD_S:
            await asyncio.wait({self._reading}, timeout=_READ_TIMEOUT_S)

    async def _read(self, uri: str) -> None:
        begun_s, found = time.monotonic(), None
        try:
            found = await asyncio.to_thread(read_keys_again, uri)
        except Exception as error:
            if self._told != str(error):  # or once a second
                logger.warning("the keys of %s stay those read last: %s", uri, error)
            self._told = str(error)
        if uri == self._uri:
            if found is not None:
                self._from_file, self._told = found, ""
            self._as_of_s = begun_s
