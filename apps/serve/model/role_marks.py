r"""What a template says in plain text of who speaks, such as Vicuna's `USER:`.

Control tokens typed by a person never become tokens, see Tokenizer. A mark of plain text is made of
the same tokens whoever writes it:

    vicuna-v1.1   SYSTEM USER: q ASSISTANT: a</s>USER: q2   `USER:`, `ASSISTANT:`
    llama-2       [INST] <<SYS>>\n..\n<</SYS>>\n\nq [/INST]   `[INST]`, `<<SYS>>`, ...
    chatml        <|im_start|>user\nq<|im_end|>\n            none: `user` alone is a word
"""

import re
from collections.abc import Sequence

from apps.common.errors import TemplateError
from apps.common.text.conversation import ChatTemplate

_SAID = tuple(f"text-{i}-of-the-probe" for i in range(4))
_ROLES = ("system", "user", "assistant", "user")


def role_marks(template: ChatTemplate, control_tokens: Sequence[str]) -> tuple[str, ...]:
    """The lines, without control tokens, that stand between messages; words alone are no marks."""
    for first in (0, 1):  # some templates know no system message
        messages = [
            {"role": role, "content": said}
            for role, said in zip(_ROLES[first:], _SAID[first:], strict=True)
        ]
        try:
            text = template.render(messages, add_generation_prompt=True).text
        except TemplateError:
            continue
        before, *between = re.split("|".join(_SAID), text)
        tokens = [*map(re.escape, sorted(control_tokens, key=len, reverse=True)), "\n"]
        marks = {mark for part in between for mark in _marks(part, tokens)}
        if first == 0:  # what stands right before a system message is said nowhere else
            marks.update(_marks(before, [*map(re.escape, marks), *tokens])[-1:])
        return tuple(sorted(marks))
    return ()


def _marks(text: str, cuts: Sequence[str]) -> list[str]:
    return [mark for part in re.split("|".join(cuts), text) if _is_mark(mark := part.strip())]


def _is_mark(text: str) -> bool:
    return len(text) > 1 and not all(char.isalnum() or char.isspace() for char in text)
