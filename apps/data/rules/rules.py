"""The rules of the cleaner in the order of application.

A rule's name is its setting's name, its function's name, and the name under which the ledger
counts. Scores are put on the record by `scores.score` and never thresholded there, so that a report
can show what another threshold would do. Rules that compare conversations are in `duplicates/`.
"""

import dataclasses
from types import FunctionType, ModuleType

from apps.data.rules import answers, escapes, given, scores, turns
from apps.data.rules.personal import mask
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Rule

_MODULES: tuple[ModuleType, ...] = (given, escapes, turns, answers, scores, mask)

RULES: dict[str, Rule] = {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(Rules)
    for module in _MODULES
    if isinstance(vars(module).get(field.name), FunctionType)
}
