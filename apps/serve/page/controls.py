"""The parameters that a visitor may set."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

Setting = float | int | str | None


class Controls:
    """An accordion of parameters; `components` are in the order that `settings_of` reads."""

    def __init__(self) -> None:
        with gr.Accordion("Parameters", open=False):
            with gr.Row():
                temperature = gr.Slider(
                    0, 2, 0.7, step=0.05, label="Temperature", info="0 always takes the likeliest"
                )
                top_p = gr.Slider(
                    0.05, 1, 1.0, step=0.05, label="Top-p", info="share of likely tokens kept"
                )
                max_tokens = gr.Slider(
                    16, 4096, 512, step=16, label="Longest answer", info="in tokens"
                )
            system = gr.Textbox(
                label="System message",
                placeholder="The model's own",
                lines=1,
                max_lines=4,
                max_length=4000,
            )
        self.components = [temperature, top_p, max_tokens, system]


def settings_of(values: Sequence[Setting]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(system message if any, request parameters)"""
    temperature, top_p, max_tokens, system = values
    messages = [{"role": "system", "content": system}] if system else []
    settings = {
        "temperature": float(temperature or 0),
        "top_p": float(top_p or 1),
        "max_completion_tokens": int(max_tokens or 512),
    }
    return messages, settings
