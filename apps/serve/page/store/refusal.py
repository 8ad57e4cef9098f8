"""What a visitor may not do, as a sentence for that visitor."""

from apps.common.errors import CriaError


class Refusal(CriaError):
    """Ends an action; nothing of it was kept."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
