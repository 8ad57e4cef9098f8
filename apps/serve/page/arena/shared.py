"""What leaves the page by a visitor's own wish: a link that anybody can open, and a file."""

import json

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.arena import views
from apps.serve.page.store.conversations import branch, has_vote, own_conversation, sides, turns_of
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Battle, Conversation

_BLIND = "Vote first: the file would name the model."
_GONE = "There is nothing behind this link any more."


def shared(session: Session, token: str) -> dict[str, object]:
    """The conversation as it was when it was shared; a blind battle without names. Refusal."""
    query = sa.select(Conversation).where(Conversation.share_token == token)
    conversation = session.scalar(query) if token else None
    if conversation is None:
        raise Refusal(_GONE)
    if conversation.battle_id is None:
        path = branch(turns_of(session, conversation.id), conversation.shared_turn_id)
        columns, names = [path], [conversation.model]
    else:
        battle = session.get_one(Battle, conversation.battle_id)
        both = sides(session, battle.id)
        length = len(branch(turns_of(session, both[0].id), conversation.shared_turn_id))
        columns = [turns_of(session, side.id)[:length] for side in both]
        known = has_vote(session, battle.id) or not battle.blind
        names = [battle.left_model, battle.right_model] if known else ["Model A", "Model B"]
    return {
        "title": conversation.title,
        "models": names,
        "columns": [[views.of_turn(turn) for turn in column] for column in columns],
    }


def _named(session: Session, visitor_id: str, conversation_id: str) -> Conversation:
    """The visitor's own, whose model may be told: of a blind battle not before the vote."""
    conversation = own_conversation(session, visitor_id, conversation_id)
    if conversation.battle_id is not None:
        battle = session.get_one(Battle, conversation.battle_id)
        if battle.blind and not has_vote(session, battle.id):
            raise Refusal(_BLIND)
    return conversation


def as_json(session: Session, visitor_id: str, conversation_id: str) -> str:
    """The visitor's own chat with all its branches, in OpenAI's roles. Refusal."""
    conversation = _named(session, visitor_id, conversation_id)
    turns = [
        {
            "id": turn.id,
            "parent": turn.parent_id,
            "messages": [
                *([{"role": "system", "content": turn.system}] if turn.system else []),
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            ],
            "status": turn.status,
        }
        for turn in turns_of(session, conversation_id)
    ]
    about = {"id": conversation.id, "model": conversation.model, "turns": turns}
    return json.dumps(about, ensure_ascii=False, indent=1)


def as_markdown(session: Session, visitor_id: str, conversation_id: str, last_id: str = "") -> str:
    """The branch that ends at that turn, for people; "": the newest. Refusal."""
    conversation = _named(session, visitor_id, conversation_id)
    turns = turns_of(session, conversation_id)
    path = branch(turns, last_id or (turns[-1].id if turns else None))
    name, system = conversation.model, ""
    parts = [f"# {conversation.title}\n\nAnswers by {name}.\n"]
    for turn in path:
        if turn.system != system:
            system = turn.system
            parts.append(f"## System\n\n{system or '(none)'}\n")
        parts.append(f"## You\n\n{turn.question}\n\n## {name}\n\n{turn.answer}\n")
    return "\n".join(parts)
