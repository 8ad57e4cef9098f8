"""The compare tab: one question to two models, side by side, and a vote."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from apps.serve.config import PageConfig
from apps.serve.page.client import AnswerError, ChatClient
from apps.serve.page.controls import Controls, Setting, settings_of
from apps.serve.page.look import welcome
from apps.serve.page.messages import History, failure, plain_messages
from apps.serve.page.votes import Verdict, VoteStore, new_battle_id

_LABELS: dict[Verdict, str] = {
    "left": "←  Left is better",
    "right": "Right is better  →",
    "tie": "Tie",
    "both_bad": "Both are bad",
}
_BLIND = "Hidden until you vote"


@dataclass(frozen=True, slots=True)
class Battle:
    """Who stands where; kept on the server, so that a page cannot give the names away."""

    id: str
    models: tuple[str, str]
    blind: bool


class CompareTab:
    """Builds the tab's components and wires their events."""

    def __init__(self, page: PageConfig, client: ChatClient, votes: VoteStore) -> None:
        self._page, self._client, self._votes = page, client, votes
        self.battle = gr.State(None)
        with gr.Row(elem_classes="bar"):
            self.left_model = gr.Dropdown([], label="Left", elem_id="left-model")
            self.right_model = gr.Dropdown([], label="Right", elem_id="right-model")
        self.blind = gr.Checkbox(False, label="Hide the names and shuffle the sides until I vote")
        with gr.Row(elem_classes="duel"):
            self.left = self._chatbot("left")
            self.right = self._chatbot("right")
        with gr.Row(elem_classes="vote"):
            self.buttons: dict[Verdict, gr.Button] = {
                verdict: gr.Button(label, interactive=False, elem_id=f"vote-{verdict}")
                for verdict, label in _LABELS.items()
            }
        self.result = gr.Markdown("", elem_classes="verdict", elem_id="verdict")
        self.ask = gr.Textbox(
            placeholder="Ask both",
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            max_length=page.max_input_chars,
            elem_classes="ask",
            elem_id="ask-both",
            submit_btn=True,
        )
        with gr.Row(elem_classes="bar"):
            self.stop = gr.Button("Stop", min_width=90)
            self.again = gr.Button("Regenerate", min_width=90)
            self.new = gr.Button("New round", min_width=90)
        self.controls = Controls()
        self._wire()

    def _chatbot(self, side: str) -> gr.Chatbot:
        return gr.Chatbot(
            label=side.capitalize(),
            height="calc(100dvh - 470px)",
            min_height=260,
            buttons=["copy"],
            feedback_options=None,
            placeholder=welcome(side.capitalize(), "Ask below; both answer at once."),
            elem_classes="chat",
            elem_id=f"{side}-chat",
        )

    def _wire(self) -> None:
        chats, buttons = [self.left, self.right], list(self.buttons.values())
        setup = [self.left_model, self.right_model, self.blind, self.battle]
        asked = self.ask.submit(
            self._ask,
            [self.ask, *chats, *setup],
            [self.ask, *chats, self.battle, self.result, *buttons],
            queue=False,
        )
        again = self.again.click(self._again, chats, [*chats, self.result, *buttons], queue=False)
        answers: list[Any] = [
            start.success(
                self._answer,
                [*chats, self.battle, *self.controls.components],
                [*chats, *buttons],
                show_progress="hidden",
            )
            for start in (asked, again)
        ]
        self.stop.click(self._stopped, chats, buttons, cancels=answers, queue=False)
        for verdict, button in self.buttons.items():
            button.click(
                self._voter(verdict),
                [*chats, self.battle, *self.controls.components],
                [self.battle, self.result, *buttons],
            )
        self.new.click(
            lambda: ([], [], None, "", *self._enabled(False)),
            None,
            [*chats, self.battle, self.result, *buttons],
            cancels=answers,
            queue=False,
        )

    def _enabled(self, on: bool) -> list[Any]:
        return [gr.update(interactive=on) for _ in self.buttons]

    def _ask(
        self,
        question: str,
        left: History,
        right: History,
        left_model: str | None,
        right_model: str | None,
        blind: bool,
        battle: Battle | None,
    ) -> tuple[Any, ...]:
        question = (question or "").strip()
        if not question:
            raise gr.Error("Type a question first.", duration=3, print_exception=False)
        if not left_model or not right_model:
            raise gr.Error("Choose two models first.", duration=5, print_exception=False)
        if battle is None:
            pair = [left_model, right_model]
            if blind:
                random.shuffle(pair)
            battle = Battle(new_battle_id(), (pair[0], pair[1]), blind)
            left, right = [], []
        user = {"role": "user", "content": question}
        return "", [*left, user], [*right, user], battle, self._names(battle), *self._enabled(False)

    def _again(self, left: History, right: History) -> tuple[Any, ...]:
        cut = [history[: _last_question(history) + 1] for history in (left, right)]
        if not all(cut):
            raise gr.Error("There is no question to answer again.", print_exception=False)
        return *cut, gr.skip(), *self._enabled(False)

    def _names(self, battle: Battle) -> str:
        if battle.blind:
            return f"*{_BLIND}*"
        return f"**{battle.models[0]}** and **{battle.models[1]}**"

    async def _answer(
        self, left: History, right: History, battle: Battle | None, *values: Setting
    ) -> AsyncIterator[tuple[Any, ...]]:
        if battle is None:
            raise gr.Error("This round is over. Ask a new question.", print_exception=False)
        histories = [left, right]
        queue: asyncio.Queue[tuple[int, dict[str, Any] | None]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._side(i, battle.models[i], histories[i], values, queue))
            for i in range(2)
        ]
        shown: list[dict[str, Any]] = [{"role": "assistant", "content": ""}] * 2
        try:
            running = 2
            while running:
                side, message = await queue.get()
                running -= message is None
                shown[side] = message or shown[side]
                both = [[*h, m] for h, m in zip(histories, shown, strict=True)]
                yield *both, *self._enabled(not running)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _side(
        self,
        side: int,
        model: str,
        history: History,
        values: tuple[Setting, ...],
        queue: asyncio.Queue[tuple[int, dict[str, Any] | None]],
    ) -> None:
        system, settings = settings_of(values)
        stream = self._client.stream(model, [*system, *plain_messages(history)], settings)
        try:
            async with contextlib.aclosing(stream):
                async for text in stream:
                    queue.put_nowait((side, {"role": "assistant", "content": text}))
        except AnswerError as error:
            queue.put_nowait((side, failure(str(error))))
        queue.put_nowait((side, None))

    def _stopped(self, left: History, right: History) -> list[Any]:
        answered = all(h and h[-1]["role"] == "assistant" for h in (left, right))
        return self._enabled(answered)

    def _voter(self, verdict: Verdict) -> Any:
        async def vote(
            left: History,
            right: History,
            battle: Battle | None,
            request: gr.Request,
            *values: Setting,
        ) -> tuple[Any, ...]:
            if battle is None:
                raise gr.Error("This round has its vote. Ask a new question.")
            kept = await asyncio.to_thread(
                self._votes.add,
                battle_id=battle.id,
                session=request.session_hash or "",
                models=battle.models,
                verdict=verdict,
                blind=battle.blind,
                conversations=(plain_messages(left), plain_messages(right)),
                settings=settings_of(values)[1],
            )
            thanks = "Thank you, your vote is kept." if kept else "This round had its vote already."
            names = f"Left was **{battle.models[0]}**, right was **{battle.models[1]}**."
            return None, f"{thanks} {names}", *self._enabled(False)

        return vote


def _last_question(history: History) -> int:
    """Index of the last message of the user; -1 when there is none."""
    return max((i for i, m in enumerate(history) if m["role"] == "user"), default=-1)
