"""What a database can keep of a text, whoever wrote it."""


def storable(text: str) -> str:
    """The text without NUL and without halves of characters, which JSON may hold.

    "a\\0" and "a\\ud83d" become "a" and a mark of what is missing; the two halves "\\ud83d\\ude00"
    are one character.
    """
    if text.isascii():
        return text.replace("\0", "\ufffd")
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")


def split_half(text: str) -> tuple[str, str]:
    """The text, and the half of a character at its end whose other half may come in a moment."""
    at = len(text) - ("\ud800" <= text[-1:] <= "\udbff")
    return text[:at], text[at:]
