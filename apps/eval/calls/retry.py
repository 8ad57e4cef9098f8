"""One request until it has an answer: for questions and answers, which nobody counts in dollars.

Judge calls take judging/loop.py's way instead, where every try is written down and paid for once.
"""

import asyncio
import random
from collections.abc import Sequence

from apps.common.command.events import Bar
from apps.eval.calls.client import CallFailure, Client, complete
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.reply import Reply

MAX_WAIT_S = 30.0


async def insist(
    client: Client,
    messages: Sequence[Message],
    settings: Parameters,
    max_attempts: int,
    bar: Bar,
) -> Reply:
    """The reply; raises the last CallFailure, and at once one that no repetition can mend.

    Every failure that is waited out shows on `bar` as its `last_failure`.
    """
    for attempt in range(1, max_attempts + 1):
        try:
            return await complete(client, messages, settings)
        except CallFailure as failure:
            if failure.kind in ("fatal", "rejected") or attempt == max_attempts:
                raise
            bar.advance(0, last_failure=failure.sentence)
            wait_s = failure.retry_after_s or min(MAX_WAIT_S, 0.5 * 2**attempt)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")
