"""The HTML that the ChatGPT page of 2023 showed for an answer, made from Markdown."""

import html
import re


def to_chatgpt_html(markdown: str) -> str:
    """The `.markdown` element of the ChatGPT page of 2023 for the few shapes the world uses."""
    blocks = re.split(r"\n\n(?=```|[^`]*$)", markdown)
    inner = "".join(_block_html(block) for block in blocks)
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{inner}</div>'


def _block_html(block: str) -> str:
    if block.startswith("```"):
        first, _, rest = block.removeprefix("```").partition("\n")
        return _code_html(first, rest.removesuffix("```"))
    if block.startswith("| "):
        return _table_html([line.strip("| ").split(" | ") for line in block.splitlines()])
    if re.match(r"1\. ", block):
        items = [re.sub(r"^\d+\. ", "", line) for line in block.splitlines()]
        return "<ol>" + "".join(f"<li><p>{_inline(item)}</p></li>" for item in items) + "</ol>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text, quote=False))


def _code_html(language: str, code: str) -> str:
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-xs">'
        f'<span>{language}</span><button class="flex ml-auto gap-2">Copy code</button></div>'
        f'<div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs language-{language}">'
        f"{html.escape(code, quote=False)}</code></div></div></pre>"
    )


def _table_html(rows: list[list[str]]) -> str:
    head, _, *body = rows
    cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"
