"""Named chat templates, and the templates that model folders bring along.

    template = load_template("vicuna-v1.1")              # with LLaMA's <s> and </s>
    template = load_template("vicuna-v1.1", tokenizer)   # with the special tokens of a tokenizer
    template = load_template("path/to/model")            # the folder's own chat template
    write_template("path/to/model", template)            # chat_template.jinja, read by any HF tool

Every named template is a Jinja source with generation markers, so the same file makes the loss
mask, the prompt at serving time, and the text that transformers, vLLM or SGLang render.

    vicuna-v1.1   <s>SYSTEM USER: q ASSISTANT: a</s>USER: q2 ASSISTANT: a2</s>
    llama-2       <s>[INST] <<SYS>>\\nSYSTEM\\n<</SYS>>\\n\\nq [/INST] a </s><s>[INST] q2 [/INST]
    llama-3       <|start_header_id|>user<|end_header_id|>\\n\\nq<|eot_id|>...
    chatml        <|im_start|>user\\nq<|im_end|>\\n<|im_start|>assistant\\na<|im_end|>\\n
    gemma         <bos><start_of_turn>user\\nq<end_of_turn>\\n<start_of_turn>model\\na...

vicuna-v1.1 is the string that FastChat 0.2.36 calls `vicuna_v1.1`. The others are the makers'
published formats; they trim the messages, as the makers' do (gemma's system message goes before the
first question: Gemma 3 does so, Gemma 2 has none).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from apps.common.errors import TemplateError
from apps.common.files import storage
from apps.common.files.model_settings import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_json,
    read_settings,
)
from apps.common.text.conversation import ChatTemplate
from apps.common.text.tokenizer import Tokenizer, read_special_tokens
from apps.common.text.tokenizer_class import Json, text_of

TEMPLATE_FILE = "chat_template.jinja"

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

_REFUSE_ROLE = (
    "{{- raise_exception('role ' ~ message['role'] ~ ' is unknown to this template; "
    "expected system, user or assistant') -}}"
)

_VICUNA = (
    "{{- bos_token -}}\n"
    "{%- if messages[0]['role'] != 'system' -%}\n"
    "  {{- '" + VICUNA_SYSTEM.replace("'", "\\'") + " ' -}}\n"
    "{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "  {%- if message['role'] == 'system' -%}\n"
    "    {%- if message['content'] -%}{{- message['content'] + ' ' -}}{%- endif -%}\n"
    "  {%- elif message['role'] == 'user' -%}\n"
    "    {{- 'USER: ' + message['content'] + ' ' -}}\n"
    "  {%- elif message['role'] == 'assistant' -%}\n"
    "    {{- 'ASSISTANT:' -}}\n"
    "    {%- generation -%}{{- ' ' + message['content'] + eos_token -}}{%- endgeneration -%}\n"
    "  {%- else -%}\n"
    "    " + _REFUSE_ROLE + "\n"
    "  {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}\n"
)

_LLAMA_2 = (
    "{%- set state = namespace(system='') -%}\n"
    "{%- for message in messages -%}\n"
    "  {%- if message['role'] == 'system' -%}\n"
    "    {%- set state.system = message['content'] | trim -%}\n"
    "  {%- elif message['role'] == 'user' -%}\n"
    "    {{- bos_token + '[INST] ' -}}\n"
    "    {%- if state.system -%}\n"
    "      {{- '<<SYS>>\\n' + state.system + '\\n<</SYS>>\\n\\n' -}}\n"
    "      {%- set state.system = '' -%}\n"
    "    {%- endif -%}\n"
    "    {{- message['content'] | trim + ' [/INST]' -}}\n"
    "  {%- elif message['role'] == 'assistant' -%}\n"
    "    {%- generation -%}\n"
    "      {{- ' ' + message['content'] | trim + ' ' + eos_token -}}\n"
    "    {%- endgeneration -%}\n"
    "  {%- else -%}\n"
    "    " + _REFUSE_ROLE + "\n"
    "  {%- endif -%}\n"
    "{%- endfor -%}\n"
)

_LLAMA_3 = (
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "  {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}\n"
    "  {%- if message['role'] == 'assistant' -%}\n"
    "    {%- generation -%}\n"
    "      {{- message['content'] | trim + '<|eot_id|>' -}}\n"
    "    {%- endgeneration -%}\n"
    "  {%- elif message['role'] in ['system', 'user'] -%}\n"
    "    {{- message['content'] | trim + '<|eot_id|>' -}}\n"
    "  {%- else -%}\n"
    "    " + _REFUSE_ROLE + "\n"
    "  {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}\n"
    "{%- endif -%}\n"
)

_CHATML = (
    "{%- for message in messages -%}\n"
    "  {{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "  {%- if message['role'] == 'assistant' -%}\n"
    "    {%- generation -%}\n"
    "      {{- message['content'] | trim + '<|im_end|>' -}}\n"
    "    {%- endgeneration -%}\n"
    "  {%- elif message['role'] in ['system', 'user'] -%}\n"
    "    {{- message['content'] | trim + '<|im_end|>' -}}\n"
    "  {%- else -%}\n"
    "    " + _REFUSE_ROLE + "\n"
    "  {%- endif -%}\n"
    "  {{- '\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
)

_GEMMA = (
    "{{- bos_token -}}\n"
    "{%- set state = namespace(system='') -%}\n"
    "{%- for message in messages -%}\n"
    "  {%- if message['role'] == 'system' -%}\n"
    "    {%- set state.system = message['content'] | trim + '\\n\\n' -%}\n"
    "  {%- elif message['role'] == 'user' -%}\n"
    "    {{- '<start_of_turn>user\\n' + state.system + message['content'] | trim -}}\n"
    "    {{- '<end_of_turn>\\n' -}}\n"
    "    {%- set state.system = '' -%}\n"
    "  {%- elif message['role'] == 'assistant' -%}\n"
    "    {{- '<start_of_turn>model\\n' -}}\n"
    "    {%- generation -%}\n"
    "      {{- message['content'] | trim + '<end_of_turn>' -}}\n"
    "    {%- endgeneration -%}\n"
    "    {{- '\\n' -}}\n"
    "  {%- else -%}\n"
    "    " + _REFUSE_ROLE + "\n"
    "  {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}\n"
)

_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_LLAMA_3_TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
_GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
_CHATML_TOKENS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

NAMED: Mapping[str, ChatTemplate] = MappingProxyType(
    {
        "vicuna-v1.1": ChatTemplate(
            "vicuna-v1.1", _VICUNA, _LLAMA_TOKENS, default_system=VICUNA_SYSTEM
        ),
        "llama-2": ChatTemplate("llama-2", _LLAMA_2, _LLAMA_TOKENS),
        "llama-3": ChatTemplate("llama-3", _LLAMA_3, _LLAMA_3_TOKENS, ("<|eot_id|>",)),
        "chatml": ChatTemplate("chatml", _CHATML, _CHATML_TOKENS, ("<|im_end|>",)),
        "gemma": ChatTemplate("gemma", _GEMMA, _GEMMA_TOKENS, ("<end_of_turn>",)),
    }
)


def load_template(name_or_folder: str, tokenizer: Tokenizer | None = None) -> ChatTemplate:
    """A named template, or the chat template of a local model or tokenizer folder.

    `tokenizer` gives a named template that tokenizer's special tokens (bos, eos, pad); a folder's
    template has the folder's. Raises TemplateError when there is no such template; whether it can
    make a loss mask is `check_template`'s question, so that any model can be served.
    """
    if name_or_folder in NAMED:
        named = NAMED[name_or_folder]
        return named if tokenizer is None else named.with_special_tokens(tokenizer.special_tokens)
    if not Path(name_or_folder).is_dir():
        raise TemplateError(
            f"No chat template {name_or_folder!r}; expected one of {', '.join(NAMED)} "
            "or a folder with a chat_template.jinja."
        )
    return _folder_template(Path(name_or_folder), tokenizer)


def _folder_template(folder: Path, tokenizer: Tokenizer | None) -> ChatTemplate:
    source = _folder_source(folder)
    if source is None:
        raise TemplateError(
            f"{folder} has no chat template (neither {TEMPLATE_FILE} nor one in "
            f"tokenizer_config.json); choose one by name: {', '.join(NAMED)}."
        )
    tokens = read_special_tokens(folder) if tokenizer is None else tokenizer.special_tokens
    for named in NAMED.values():
        if named.source.strip() == source.strip():
            return named.with_special_tokens(tokens)
    return ChatTemplate("own", source, tokens, _folder_stop_tokens(folder))


def _folder_source(folder: Path) -> str | None:
    """transformers' order: chat_template.jinja before the entry in tokenizer_config.json."""
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text("utf-8")
    config = read_json(folder, TOKENIZER_CONFIG)
    stated = _default_of(config.get("chat_template"))
    if stated is None or isinstance(stated, str):
        return stated
    raise TemplateError(
        f"The chat_template in {TOKENIZER_CONFIG} of {folder} is {type(stated).__name__}; expected "
        "a Jinja text, or a list of objects with name and template."
    )


def _default_of(stated: object) -> object:
    """Of a list of named templates the default one, None without it; all else as it is."""
    if not isinstance(stated, list):
        return stated
    entries = cast(list[object], stated)
    if not all(isinstance(entry, dict) for entry in entries):
        return entries
    templates = cast(list[Json], entries)
    return next((one.get("template") for one in templates if one.get("name") == "default"), None)


def _folder_stop_tokens(folder: Path) -> tuple[str, ...]:
    """Strings of the folder's eos_token_id, which may name several tokens."""
    wanted = read_settings(folder).eos_token_ids
    added = cast(list[Json], read_json(folder, TOKENIZER).get("added_tokens", []))
    return tuple(text_of(token) for token in added if token["id"] in wanted)


def write_template(folder: str, template: ChatTemplate) -> None:
    """Make `template` the chat template of a local model folder.

    Writes chat_template.jinja and removes a `chat_template` entry of tokenizer_config.json. The
    folder's generation_config.json should name `template.stop_token_ids(...)` as eos_token_id.
    """
    storage.write_atomic(storage.join(folder, TEMPLATE_FILE), template.source.encode())
    config = read_json(folder, TOKENIZER_CONFIG)
    if config.pop("chat_template", None) is not None:
        storage.write_json(storage.join(folder, TOKENIZER_CONFIG), config)
