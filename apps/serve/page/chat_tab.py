"""The chat tab: one model, one conversation."""

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from apps.serve.config import PageConfig
from apps.serve.page.client import AnswerError, ChatClient
from apps.serve.page.controls import Controls, Setting, settings_of
from apps.serve.page.look import welcome
from apps.serve.page.messages import History, failure, plain_messages, text_of

_IDLE: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
_BUSY: dict[str, Any] = {"submit_btn": False, "stop_btn": True}


class ChatTab:
    """Builds the tab's components and wires their events."""

    def __init__(self, page: PageConfig, client: ChatClient, kept: gr.BrowserState) -> None:
        self._page = page
        self._client = client
        with gr.Row(elem_classes="bar"):
            self.model = gr.Dropdown(
                [], label="Model", show_label=False, container=False, scale=1, elem_id="model"
            )
            self.new = gr.Button("New chat", scale=0, min_width=110, size="md")
        self.chat = gr.Chatbot(
            show_label=False,
            height="calc(100dvh - 320px)",
            min_height=300,
            layout="bubble",
            buttons=["copy"],
            editable="user",
            feedback_options=None,
            placeholder=welcome(
                "What would you like to know?", "Answers may be wrong. Check them."
            ),
            examples=[{"text": text} for text in page.examples],
            elem_classes="chat",
            elem_id="chat",
        )
        self.ask = gr.Textbox(
            placeholder="Ask something",
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            max_length=page.max_input_chars,
            autofocus=True,
            elem_classes="ask",
            elem_id="ask",
            **_IDLE,
        )
        self.controls = Controls()
        self._wire(kept)

    def _wire(self, kept: gr.BrowserState) -> None:
        answer_in = [self.chat, self.model, *self.controls.components]
        answer_out = [self.chat, self.ask]
        starts = [
            self.ask.submit(self._ask, [self.ask, self.chat], [self.ask, self.chat], queue=False),
            self.chat.example_select(self._example, None, self.chat, queue=False),
            self.chat.retry(self._retry, self.chat, self.chat, queue=False),
            self.chat.edit(self._edit, self.chat, self.chat, queue=False),
        ]
        answers: list[Any] = [
            start.success(
                self._answer, answer_in, answer_out, show_progress="hidden", trigger_mode="once"
            )
            for start in starts
        ]
        for answer in answers:
            answer.then(plain_messages, self.chat, kept, queue=False)
        self.chat.undo(self._undo, self.chat, [self.chat, self.ask], queue=False)
        idle = self.ask.stop(
            lambda: gr.update(**_IDLE), None, self.ask, cancels=answers, queue=False
        )
        idle.then(plain_messages, self.chat, kept, queue=False)
        for event in (self.new.click, self.chat.clear):
            event(
                lambda: ([], gr.update(value="", **_IDLE), []),
                None,
                [self.chat, self.ask, kept],
                cancels=answers,
                queue=False,
            )

    def _ask(self, question: str, history: History) -> tuple[Any, History]:
        question = (question or "").strip()
        if not question:
            raise gr.Error("Type a question first.", duration=3, print_exception=False)
        if len(history) >= 2 * self._page.max_turns:
            raise gr.Error(
                f"This chat has reached {self._page.max_turns} turns. Begin a new one.",
                print_exception=False,
            )
        user = {"role": "user", "content": question}
        return gr.update(value="", **_BUSY), [*history, user]

    def _example(self, picked: gr.SelectData) -> History:
        return [{"role": "user", "content": picked.value["text"]}]

    def _retry(self, history: History, at: gr.RetryData) -> History:
        return history[: _position(at.index) + 1]

    def _edit(self, history: History, edit: gr.EditData) -> History:
        return [*history[: _position(edit.index)], {"role": "user", "content": str(edit.value)}]

    def _undo(self, history: History, at: gr.UndoData) -> tuple[History, str]:
        index = _position(at.index)
        return history[:index], text_of(history[index])

    async def _answer(
        self, history: History, model: str | None, *values: Setting
    ) -> AsyncIterator[tuple[History, Any]]:
        yield [*history, {"role": "assistant", "content": ""}], gr.update(**_BUSY)
        try:
            model = model or await self._client.some_model()
            system, settings = settings_of(values)
            messages = [*system, *plain_messages(history)]
            text = ""
            async for text in self._client.stream(model, messages, settings):
                yield [*history, {"role": "assistant", "content": text}], gr.skip()
            answer = {"role": "assistant", "content": text}
            if not text:
                answer = failure("The model gave an empty answer.")
            yield [*history, answer], gr.update(**_IDLE)
        except AnswerError as error:
            yield [*history, failure(str(error))], gr.update(**_IDLE)


def _position(index: Any) -> int:
    """A message's place; Gradio gives a number, or a pair for nested messages."""
    return int(index[0]) if isinstance(index, list | tuple) else int(index)
