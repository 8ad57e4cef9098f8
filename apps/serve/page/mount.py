"""Puts the page together and into a FastAPI application.

Ray Serve's own class for Gradio never starts the event queue of Gradio 6 (measured); mounting the
page into an application that Serve runs does.
"""

import os

import gradio as gr
from fastapi import FastAPI

from apps.serve.config import PageConfig
from apps.serve.page import look
from apps.serve.page.chat_tab import ChatTab
from apps.serve.page.client import AnswerError, ChatClient
from apps.serve.page.compare_tab import CompareTab
from apps.serve.page.messages import History
from apps.serve.page.votes import VoteStore

_CONCURRENT_EVENTS = 64
_MAX_QUEUED_EVENTS = 512


def build_page(page: PageConfig, api_url: str) -> FastAPI:
    """The page as an application; whoever serves it chooses the path."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    blocks = build_blocks(page, ChatClient(api_url, page.api_key_env), VoteStore(page.votes_url))
    return gr.mount_gradio_app(
        FastAPI(),
        blocks,
        path="/",
        theme=look.theme(),
        css=look.CSS,
        head=look.HEAD,
        show_error=True,
        ssr_mode=False,
        max_file_size="1kb",
        footer_links=[],
    )


def build_blocks(page: PageConfig, client: ChatClient, votes: VoteStore) -> gr.Blocks:
    with gr.Blocks(title=page.title, fill_height=True, analytics_enabled=False) as blocks:
        kept = gr.BrowserState([], storage_key="cria-chat", secret="cria")
        with gr.Row(elem_id="head"):
            gr.HTML(look.brand(page.title), container=False, padding=False)
            toggle = gr.Button("◐", elem_id="theme", scale=0)
            toggle.click(None, js=look.TOGGLE_THEME)
        with gr.Tab("Chat"):
            chat = ChatTab(page, client, kept)
        with gr.Tab("Compare"):
            compare = CompareTab(page, client, votes)
        gr.Markdown("Models make mistakes. Check what matters.", elem_classes="note")

        async def load(history: History) -> tuple[object, ...]:
            try:
                names = await client.models()
            except AnswerError as error:
                gr.Warning(str(error))
                names = []
            first, second = names[-1] if names else None, names[0] if names else None
            choose = [gr.update(choices=names, value=v) for v in (first, second, first)]
            # Whoever was quick to ask before this answered must not lose the question.
            return history or gr.skip(), *choose

        blocks.load(load, kept, [chat.chat, chat.model, compare.left_model, compare.right_model])
    blocks.queue(
        max_size=_MAX_QUEUED_EVENTS, default_concurrency_limit=_CONCURRENT_EVENTS, api_open=False
    )
    return blocks
