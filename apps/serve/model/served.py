"""What the gateway knows about a served model: its text side and its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.common.errors import TemplateError
from apps.common.files.model_folder import text_folder
from apps.common.files.model_settings import ModelSettings, read_settings
from apps.common.text.conversation import ChatTemplate
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import Tokenizer, break_control_tokens, load_tokenizer
from apps.serve.config import ModelConfig
from apps.serve.model.grammar import GrammarCompiler
from apps.serve.model.role_marks import role_marks
from apps.serve.model.text import TokenBytes
from apps.serve.model.tool_arguments import Arguments, with_arguments

_PROBE = "the-answer-begins-here"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model's tokenizer, template, defaults and limits."""

    config: ModelConfig
    tokenizer: Tokenizer
    tokens: TokenBytes
    """bytes of single tokens, for logprobs"""
    template: ChatTemplate | None
    """None: the folder has no chat template; only /v1/completions works."""
    role_marks: tuple[str, ...]
    """Text of the template that says who speaks."""
    answer_space: str
    """White space that the template writes between the prompt and the answer."""
    defaults: Mapping[str, float]
    """Sampling where a request does not say: serve.yaml's, else generation_config.json's."""
    eos_token_ids: frozenset[int]
    context_tokens: int | None
    longest_token_chars: int
    created: int
    """unix time, from the model folder"""

    def fewest_tokens(self, num_chars: int) -> int:
        """What a text of that length takes at least, known without tokenizing it."""
        return -(-num_chars // self.longest_token_chars)

    def encode(self, text: str, special_tokens: bool = True) -> list[int]:
        """Ids of a text, with the special tokens that the tokenizer puts around one, or without.

        Of tokenizers' ways to encode only those of batches let other threads run meanwhile, and
        this one leaves out the offsets that nobody reads.
        """
        batch = self.tokenizer.backend.encode_batch_fast([text], add_special_tokens=special_tokens)
        return batch[0].ids

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        break_role_marks: bool = False,
    ) -> str:
        """Text of a conversation. Control tokens that somebody typed into a message, a call or a
        tool's description stay text. Where they are to be broken, so do role marks in messages that
        the model did not say."""
        if self.template is None:
            raise TemplateError(
                f"The model {self.config.name!r} has no chat template; use /v1/completions, or "
                "name a template in its settings."
            )
        marks = self.role_marks if break_role_marks else ()
        rendered = self.template.render(
            [
                _safe(
                    with_arguments(message),
                    self.tokenizer,
                    () if message["role"] == "assistant" else marks,
                )
                for message in messages
            ],
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=_safe(tools, self.tokenizer, ()),
        )
        return rendered.text

    @property
    def shows_tools(self) -> bool:
        return self.template is not None and "tools" in self.template.source


def _safe(value: Any, tokenizer: Tokenizer, marks: tuple[str, ...]) -> Any:
    """The value with no control token and none of these marks in any of its texts."""

    def safe(inside: Any) -> Any:
        return _safe(inside, tokenizer, marks)

    if isinstance(value, str):
        broken = (*tokenizer.control_tokens, *marks)
        return break_control_tokens(value, broken, tokenizer.hidden_tokens)[0]
    if isinstance(value, Mapping):
        inside = {safe(key): safe(item) for key, item in value.items()}
        return Arguments(inside, safe(str(value))) if isinstance(value, Arguments) else inside
    return [safe(item) for item in value] if isinstance(value, list) else value


def mask_factory(folder: str) -> GrammarCompiler | None:
    """What turns a grammar into token masks; None for a model that names no end token."""
    settings = read_settings(folder)
    eos = settings.eos_token_ids
    if not eos:
        return None
    return GrammarCompiler(load_tokenizer(folder).backend, settings.vocab_size, eos)


def load_model(config: ModelConfig) -> ServedModel:
    """Read the text side of a model folder; takes no weights."""
    folder = text_folder(config.path)
    tokenizer = load_tokenizer(folder)
    template = _template(config, folder, tokenizer)
    settings = read_settings(folder)
    eos_ids = set(settings.eos_token_ids)
    if template is not None:
        eos_ids |= set(template.stop_token_ids(tokenizer.backend))
    return ServedModel(
        config=config,
        tokenizer=tokenizer,
        tokens=TokenBytes(tokenizer.backend),
        template=template,
        role_marks=role_marks(template, tokenizer.control_tokens) if template else (),
        answer_space=_answer_space(template),
        defaults=config.sampling.over(settings.sampling),
        eos_token_ids=frozenset(eos_ids),
        context_tokens=_context_tokens(config, settings),
        longest_token_chars=max(map(len, tokenizer.backend.get_vocab())),
        created=int((Path(folder) / "tokenizer.json").stat().st_mtime),
    )


def _context_tokens(config: ModelConfig, settings: ModelSettings) -> int | None:
    """What the engine will take: settings make it shorter than the model's, never longer."""
    is_ours = config.engine == "torch"
    reach = settings.context_without_window if is_ours else settings.positions
    budgets = (reach, config.options.get("context_tokens"), config.options.get("kv_tokens"))
    return min((tokens for tokens in budgets if tokens), default=None)


def _template(config: ModelConfig, folder: str, tokenizer: Tokenizer) -> ChatTemplate | None:
    if config.template:
        return load_template(config.template, tokenizer)
    try:
        return load_template(folder, tokenizer)
    except TemplateError:
        return None


def _answer_space(template: ChatTemplate | None) -> str:
    if template is None:
        return ""
    question = {"role": "user", "content": "?"}
    try:
        prompt = template.render([question], add_generation_prompt=True).text
        whole = template.render([question, {"role": "assistant", "content": _PROBE}]).text
    except TemplateError:
        return ""
    at = whole.find(_PROBE)
    between = whole[len(prompt) : at] if whole.startswith(prompt) else ""
    return between if between.isspace() else ""
