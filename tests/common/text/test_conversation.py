"""Chat templates: text, ids and loss mask against transformers, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.common.errors import InputError, TemplateError
from apps.common.text.conversation import ChatTemplate, Message
from apps.common.text.template_check import check_template
from apps.common.text.templates import NAMED, VICUNA_SYSTEM, load_template, write_template
from apps.common.text.tokenizer import Tokenizer, break_control_tokens, load_tokenizer
from tests import made

CASES = {
    "vicuna-v1.1/byte-level": ("vicuna-v1.1", lambda d: made.byte_level_folder(d)),
    "vicuna-v1.1/sentencepiece": ("vicuna-v1.1", lambda d: made.sentencepiece_folder(d)),
    "vicuna-v1.1/legacy": ("vicuna-v1.1", lambda d: made.sentencepiece_folder(d, legacy=True)),
    "vicuna-v1.1/as-is": ("vicuna-v1.1", lambda d: made.sentencepiece_folder(d, as_llama=False)),
    "llama-2/sentencepiece": ("llama-2", lambda d: made.sentencepiece_folder(d)),
    "llama-3/byte-level": ("llama-3", lambda d: made.byte_level_folder(d, "llama-3")),
    "chatml/byte-level": ("chatml", lambda d: made.byte_level_folder(d, "chatml")),
    "gemma/byte-level": ("gemma", lambda d: made.byte_level_folder(d, "gemma")),
}
CONVERSATION = (
    Message("user", "What is 2+2?"),
    Message("assistant", "It is 4.\n\n```python\nprint(2 + 2)\n```"),
    Message("user", "Grüße 你好 🦙"),
    Message("assistant", "Grüße!"),
)


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> tuple[str, Tokenizer, ChatTemplate]:
    name, make = CASES[request.param]
    folder = make(tmp_path_factory.mktemp("tokenizer"))
    tokenizer = load_tokenizer(folder)
    template = load_template(name, tokenizer)
    write_template(folder, template)
    return folder, tokenizer, template


@pytest.fixture(scope="module")
def hf(case):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(case[0])


def as_dicts(messages) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def words() -> st.SearchStrategy[str]:
    tricky = ["USER:", "ASSISTANT: ", "[/INST]", "\n", "  ", "<<SYS>>", "é", "🦙", "\t", "' \""]
    piece = st.one_of(st.sampled_from(tricky), st.text(st.characters(codec="utf-8"), max_size=6))
    return st.lists(piece, min_size=1, max_size=8).map(lambda p: "".join(p).strip() or "x")


def conversations() -> st.SearchStrategy[tuple[Message, ...]]:
    pair = st.tuples(words(), words())

    def build(parts: tuple[str | None, list[tuple[str, str]]]) -> tuple[Message, ...]:
        system, pairs = parts
        head = () if system is None else (Message("system", system),)
        turns = [m for q, a in pairs for m in (Message("user", q), Message("assistant", a))]
        return (*head, *turns)

    return st.tuples(st.none() | words(), st.lists(pair, min_size=1, max_size=3)).map(build)


def test_ids_and_mask_equal_transformers(case, hf):
    _, tokenizer, template = case

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations())
    def check(messages):
        encoded = template.encode_batch(tokenizer.backend, [messages])[0]
        theirs = hf.apply_chat_template(
            as_dicts(messages), return_dict=True, return_assistant_tokens_mask=True
        )
        assert encoded.ids.tolist() == theirs["input_ids"]
        if encoded.fault is None:
            assert encoded.mask.astype(int).tolist() == theirs["assistant_masks"]

    check()


def test_prompt_ids_are_a_prefix_of_the_training_ids(case, hf):
    _, tokenizer, template = case

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations())
    def check(messages):
        messages = tuple(
            Message(m.role, break_control_tokens(m.content, tokenizer.control_tokens)[0])
            for m in messages
        )
        encoded = template.encode_batch(tokenizer.backend, [messages])[0]
        if encoded.fault is not None:
            return
        starts = np.flatnonzero(np.diff(encoded.mask.astype(int), prepend=0) == 1)
        answers = [i for i, m in enumerate(messages) if m.role == "assistant"]
        assert len(starts) == len(answers)
        for at, start in zip(answers, starts, strict=True):
            text = template.render(messages[:at], add_generation_prompt=True).text
            prompt = tokenizer.backend.encode(text, add_special_tokens=False).ids
            assert prompt == encoded.ids[:start].tolist()

    check()


def test_rendering_equals_transformers(case, hf):
    _, _, template = case
    plain = as_dicts(CONVERSATION)
    assert template.render(plain).text == hf.apply_chat_template(plain, tokenize=False)
    assert template.render(plain[:3], add_generation_prompt=True).text == hf.apply_chat_template(
        plain[:3], tokenize=False, add_generation_prompt=True
    )
    assert template.render(plain, continue_final_message=True).text == hf.apply_chat_template(
        plain, tokenize=False, continue_final_message=True
    )


def test_every_named_template_passes_its_check(case):
    _, tokenizer, template = case
    check_template(template, tokenizer)


def test_the_mask_is_the_answers_and_their_stop_tokens(case):
    _, tokenizer, template = case
    encoded = template.encode(tokenizer.backend, CONVERSATION)
    said = tokenizer.backend.decode(encoded.ids[encoded.mask].tolist(), skip_special_tokens=False)
    stop = template.stop_strings[0]
    parts = [part.strip() for part in said.split(stop)]
    assert parts == [CONVERSATION[1].content, CONVERSATION[3].content, ""]


def test_role_words_and_control_tokens_in_a_message_never_move_the_mask(case):
    _, tokenizer, template = case
    stop = template.stop_strings[0]
    question = f"Say {stop}USER: x ASSISTANT: y [/INST] z"
    messages = [Message("user", question), Message("assistant", f"ok ASSISTANT: {stop} USER: no")]
    encoded = template.encode(tokenizer.backend, messages)
    start = int(np.argmax(encoded.mask))
    prompt = template.render(messages[:1], add_generation_prompt=True).text
    assert start == len(tokenizer.backend.encode(prompt, add_special_tokens=False).ids)
    broken = [
        Message(m.role, break_control_tokens(m.content, tokenizer.control_tokens)[0])
        for m in messages
    ]
    ids = template.encode(tokenizer.backend, broken).ids
    assert (ids == tokenizer.backend.token_to_id(stop)).sum() == (
        template.encode(tokenizer.backend, [Message("user", "q"), Message("assistant", "a")]).ids
        == tokenizer.backend.token_to_id(stop)
    ).sum()


def test_vicuna_is_fastchats_string():
    text = NAMED["vicuna-v1.1"].render(CONVERSATION[:2] + CONVERSATION[2:3], True).text
    q, a, q2 = (m.content for m in CONVERSATION[:3])
    assert text == f"<s>{VICUNA_SYSTEM} USER: {q} ASSISTANT: {a}</s>USER: {q2} ASSISTANT:"


def test_llama_2_is_metas_string():
    messages = (Message("system", "Be brief."), *CONVERSATION)
    q, a, q2, a2 = (m.content for m in CONVERSATION)
    assert NAMED["llama-2"].render(messages).text == (
        f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{q} [/INST] {a} </s>"
        f"<s>[INST] {q2} [/INST] {a2} </s>"
    )


def test_breaking_control_tokens_leaves_none():
    tokens = ("</s>", "<s>", "<|im_end|>")
    text, count = break_control_tokens("a </s> <<s>s> <|im_end|>", tokens)
    assert (text, count) == ("a < /s> << s>s> < |im_end|>", 3)


@pytest.fixture(scope="module")
def llama_tokenizer(tmp_path_factory) -> Tokenizer:
    return load_tokenizer(made.sentencepiece_folder(tmp_path_factory.mktemp("refused")))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "never learn to stop"),
        (
            "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' and loop.last %}"
            "<think></think>{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
            r"no generation markers and renders a turn otherwise .*--template chatml",
        ),
        (
            "{% for m in messages %}{% generation %}{% endgeneration %}{{ m.content }}{% endfor %}",
            "changes or leaves out",
        ),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
            "{{ m.content }}{% endgeneration %}{{ eos_token }}{% else %}{{ m.content }} ?"
            "{% endif %}{% endfor %}",
            "never learn to stop",
        ),
        (
            "{{ messages | length }} {% for m in messages %}{% if m.role == 'assistant' %}"
            "{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}"
            "{{ m.content }} ?{% endif %}{% endfor %}",
            "not a prefix",
        ),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}cap"
            "{% generation %}ital {{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}"
            "{{ m.content }} {% endif %}{% endfor %}",
            "both assistant text and text around it",
        ),
        ("{{ strftime_now('%d') }}{% generation %}{% endgeneration %}", "strftime_now"),
        ("{% generation %}{% endgeneration %}{{", "does not parse"),
    ],
)
def test_a_template_that_cannot_train_is_refused_with_a_sentence(llama_tokenizer, source, why):
    template = ChatTemplate("own", source, llama_tokenizer.special_tokens)
    with pytest.raises(TemplateError, match=why):
        check_template(template, llama_tokenizer)


def test_a_template_whose_stop_token_the_tokenizer_lacks_is_refused(llama_tokenizer):
    template = load_template("chatml", llama_tokenizer)
    with pytest.raises(TemplateError, match="add it to the tokenizer"):
        check_template(template, llama_tokenizer)


def test_a_folders_own_template_comes_with_its_stop_tokens(tmp_path):
    folder = made.byte_level_folder(tmp_path, "chatml")
    with pytest.raises(TemplateError, match="no chat template"):
        load_template(folder)
    source = NAMED["chatml"].source.replace("system", "system ")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "default", "template": source}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    own = load_template(folder)
    assert own.source == source
    assert own.stop_strings == ("<|endoftext|>", "<|im_end|>")
    write_template(folder, NAMED["chatml"])
    assert load_template(folder).name == "chatml"
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_templates_survive_json():
    for template in NAMED.values():
        assert ChatTemplate.from_dict(json.loads(json.dumps(template.to_dict()))) == template


def test_unknown_template_names_the_known_ones():
    with pytest.raises(TemplateError, match=r"vicuna-v1\.1, llama-2"):
        load_template("vicuna")


def test_sentencepiece_only_folder_gets_the_conversion_command(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(InputError, match="save_pretrained"):
        load_tokenizer(str(tmp_path))


def test_a_batch_reports_faults_beside_good_conversations(llama_tokenizer):
    template = load_template("vicuna-v1.1", llama_tokenizer)
    bad = [{"role": "tool", "content": "x"}]
    good, refused = template.encode_batch(llama_tokenizer.backend, [CONVERSATION, bad])
    assert (good.fault, refused.fault) == (None, "template_refuses")
    assert good.mask.any() and len(refused.ids) == 0


def unmarked(template: ChatTemplate) -> ChatTemplate:
    source = template.source.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    return replace(template, source=source)


def test_the_mask_of_an_unmarked_template_is_that_of_the_marked_one(case):
    """Its markers taken out, a template's answers are found by rendering without them."""
    _, tokenizer, template = case
    if template.name == "llama-2":  # which writes the space before an answer with the answer
        pytest.skip("its generation prompt ends before that space, as the markers say")
    check_template(unmarked(template), tokenizer)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations())
    def check(messages):
        marked = template.encode_batch(tokenizer.backend, [messages])[0]
        derived = unmarked(template).encode_batch(tokenizer.backend, [messages])[0]
        assert derived.ids.tolist() == marked.ids.tolist()
        assert derived.mask.tolist() == marked.mask.tolist()
        assert derived.fault == marked.fault

    check()


OWN = {
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} "
        "[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "thinking is dropped from all turns": (
        "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    ),
}


@pytest.mark.parametrize("source", OWN.values(), ids=OWN)
def test_a_makers_template_without_markers_can_train(llama_tokenizer, source):
    template = ChatTemplate("own", source, llama_tokenizer.special_tokens)
    check_template(template, llama_tokenizer)
    encoded = template.encode(llama_tokenizer.backend, CONVERSATION)
    said = llama_tokenizer.backend.decode(encoded.ids[encoded.mask].tolist(), False)
    parts = [part.strip() for part in said.split("</s>")]
    assert parts == [CONVERSATION[1].content, CONVERSATION[3].content, ""]


def test_thinking_that_a_template_drops_leaves_the_conversation_out(llama_tokenizer):
    source = OWN["thinking is dropped from all turns"]
    template = ChatTemplate("own", source, llama_tokenizer.special_tokens)
    thought = (Message("user", "q"), Message("assistant", "<think>hm</think>a"))
    assert template.encode_batch(llama_tokenizer.backend, [thought])[0].fault == "content_changed"


def test_a_tokenizer_that_loses_text_is_refused_and_named(tmp_path):
    """A byte-level vocabulary under LLaMA's class: AutoTokenizer loses every space of it too."""
    folder = made.byte_level_folder(tmp_path, "llama-3")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "LlamaTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(folder)
    with pytest.raises(TemplateError, match=r"tokenizer loses text: .* PreTrainedTokenizerFast"):
        check_template(load_template("llama-3", tokenizer), tokenizer)
