"""A request whose answer goes on where another back end had to leave off.

    messages [user "Count."], so far "one two"  ->  messages [user "Count.", assistant "one two"],
                                                    continue_final_message
    prompt "Once", so far " upon"               ->  prompt "Once upon"

The text is tokenized anew there, and random numbers are drawn anew. So the answer is one that the
model could have given; where it is greedy and tokens do not depend on the cut, it is the same.
"""

from dataclasses import dataclass

from apps.serve.gateway.attempt import Json
from apps.serve.request.prompts import message_text
from apps.serve.request.schemas import ChatRequest, CompletionRequest


@dataclass(slots=True)
class ChoiceSoFar:
    """What the client has of one choice."""

    text: str = ""
    num_tokens: int = 0
    has_role: bool = False
    has_calls: bool = False
    is_finished: bool = False
    begin: int = 0
    """chars that it had when the back end of now took it over"""

    @property
    def has_begun(self) -> bool:
        return bool(self.text) or self.has_calls or self.is_finished

    def placed(self, choice: Json) -> Json:
        """A piece of it whose tokens' places count from the text's beginning."""
        logprobs = choice.get("logprobs")
        offsets = logprobs.get("text_offset") if isinstance(logprobs, dict) else None
        if not (self.begin and isinstance(logprobs, dict) and isinstance(offsets, list)):
            return choice
        moved = [self.begin + at if isinstance(at, int) else at for at in offsets]
        return {**choice, "logprobs": {**logprobs, "text_offset": moved}}

    def take(self, choice: Json) -> None:
        """A piece of it, as it is sent."""
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self.text += delta.get("content") or ""
            self.has_role = self.has_role or "role" in delta
            self.has_calls = self.has_calls or bool(delta.get("tool_calls"))
        text = choice.get("text")
        self.text += text if isinstance(text, str) else ""
        self.is_finished = self.is_finished or choice.get("finish_reason") is not None


def can_continue(request: ChatRequest | CompletionRequest, so_far: ChoiceSoFar) -> bool:
    """A grammar and a call would begin anew in the middle."""
    if request.response_format is not None and request.response_format.type != "text":
        return False
    if isinstance(request, ChatRequest):
        return not so_far.has_calls and not request.tools
    prompt = request.prompt
    return isinstance(prompt, str) and (not request.echo or so_far.text.startswith(prompt))


def continued(body: Json, request: ChatRequest | CompletionRequest, so_far: ChoiceSoFar) -> Json:
    """Of one choice. `request` is what `body` says, checked."""
    left = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}
    for name, most in left.items():
        if isinstance(most, int):
            left[name] = max(1, most - so_far.num_tokens)
    if isinstance(least := body.get("min_tokens"), int):
        left["min_tokens"] = max(0, least - so_far.num_tokens)
    body = {**body, **left, "n": 1}
    if isinstance(request, CompletionRequest):
        before = "" if request.echo else request.prompt  # it is in the text already
        return {**body, "prompt": f"{before}{so_far.text}", "echo": False}
    messages = body["messages"]
    assert isinstance(messages, list)  # it was checked
    last: Json = {"role": "assistant", "content": so_far.text}
    if request.continue_final_message:
        *messages, begun = messages
        text = message_text(request.messages[-1], len(messages))
        last = {**begun, "content": f"{text}{so_far.text}"}
        last.pop("refusal", None)  # it is in the text, where there was no other
    return {
        **body,
        "messages": [*messages, last],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
