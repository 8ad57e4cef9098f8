"""Judgments that no endpoint is asked for: the offline judge's, and ties of equal answers."""

from apps.eval.calls.reply import Reply
from apps.eval.judging.call import Call
from apps.eval.judging.offline import respond

EQUAL = "Both answers are the same, so this is a tie; no judge was asked."


def local_reply(call: Call) -> Reply | None:
    """The judgment, in the text form of the protocol so that it takes the way of every other."""
    if call.is_equal:
        tie = "C" if call.form.fmt == "letter" else "A=B"
        return _reply(call, f"{EQUAL}\n{call.nonce} [[{tie}]]")
    if call.reference_check is not None:
        return _reply(call, respond(call.form.fmt, call.reference_check, call.nonce))
    return None


def _reply(call: Call, text: str) -> Reply:
    return Reply(text=text, finish_reason="stop", endpoint_model=call.judge)
