"""Names of the columns of a table, of which several may be the same."""

from collections import Counter
from collections.abc import Sequence


def unique_names(names: Sequence[str]) -> list[str]:
    """The second column of a name gets another, so that it is seen as one that nobody reads.

    ["prompt", "answer", "answer"]  ->  ["prompt", "answer", "answer (2)"]
    """
    seen = Counter[str]()
    unique: list[str] = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return unique
