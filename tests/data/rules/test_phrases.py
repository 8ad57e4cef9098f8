"""Refusals, identity and the end of knowledge are known in eleven languages."""

from pathlib import Path

import pytest

from apps.common.errors import ConfigError
from apps.data.rules import phrases
from apps.data.rules.profiles import Rules, strict, with_files_read
from tests.data.commands import conversation, rows_of, run_clean, write_dump

SAID: dict[str, dict[phrases.Kind, list[str]]] = {
    "en": {
        "refusal": ["I'm sorry, but I cannot help with that."],
        "identity": ["As an AI language model, I like tea."],
        "cutoff": ["My knowledge cutoff is 2021."],
    },
    "zh": {
        "refusal": [
            "很抱歉，作为一个人工智能语言模型，我无法帮助您完成这个请求。",
            "對不起，我無法提供這些資訊。",
            "我不能提供这类内容。",
        ],
        "identity": ["我是由一家公司训练的语言模型。", "作为AI助手，我喜欢茶。", "我是ChatGPT。"],
        "cutoff": ["我的知识截止于2021年9月。", "截至2021年9月，情况如此。"],
    },
    "ja": {
        "refusal": ["申し訳ありませんが、そのご依頼にはお応えできません。"],
        "identity": ["AI言語モデルとして、私は茶が好きです。", "私はChatGPTです。"],
        "cutoff": ["私の知識のカットオフは2021年9月です。", "2021年9月までの情報しかありません。"],
    },
    "ko": {
        "refusal": ["죄송합니다, 그 요청은 도와드릴 수 없습니다."],
        "identity": ["저는 AI 언어 모델로서 차를 좋아합니다.", "저는 ChatGPT입니다."],
        "cutoff": ["2021년 9월까지의 정보만 알고 있습니다."],
    },
    "es": {
        "refusal": ["Lo siento, pero no puedo ayudarte con eso.", "No puedo proporcionar eso."],
        "identity": ["Como modelo de lenguaje, me gusta el té.", "Soy ChatGPT."],
        "cutoff": ["La fecha de corte de mi conocimiento es 2021."],
    },
    "fr": {
        "refusal": [
            "Je suis désolé, mais je ne peux pas vous aider.",
            "Désolée, je n’ai pas le droit.",
        ],
        "identity": [
            "En tant que modèle de langage, j'aime le thé.",
            "J’ai été créé par des gens.",
        ],
        "cutoff": ["Mes connaissances s'arrêtent en septembre 2021."],
    },
    "de": {
        "refusal": [
            "Es tut mir leid, aber ich kann Ihnen dabei nicht helfen.",
            "Leider kann ich das nicht beantworten.",
        ],
        "identity": ["Als KI-Sprachmodell mag ich Tee.", "Ich wurde von Leuten entwickelt."],
        "cutoff": ["Mein Wissen reicht nur bis September 2021."],
    },
    "pt": {
        "refusal": ["Desculpe, mas não posso ajudar com isso.", "Infelizmente, não tenho acesso."],
        "identity": ["Como um modelo de linguagem, gosto de chá.", "Fui treinado por pessoas."],
        "cutoff": ["Meu conhecimento vai até setembro de 2021."],
    },
    "ru": {
        "refusal": ["Извините, но я не могу помочь с этим.", "К сожалению, я не могу ответить."],
        "identity": ["Как языковая модель, я люблю чай.", "Я был создан командой людей."],
        "cutoff": ["Мои знания ограничены сентябрём 2021 года."],
    },
    "it": {
        "refusal": ["Mi dispiace, ma non posso aiutarti.", "Purtroppo non posso farlo."],
        "identity": ["Come modello di linguaggio, amo il tè.", "Sono stato creato da persone."],
        "cutoff": ["Le mie conoscenze sono aggiornate al settembre 2021."],
    },
    "vi": {
        "refusal": ["Xin lỗi, tôi không thể giúp bạn việc đó."],
        "identity": ["Là một mô hình ngôn ngữ, tôi thích trà.", "Tôi là ChatGPT."],
        "cutoff": ["Dữ liệu của tôi chỉ cập nhật đến tháng 9 năm 2021."],
    },
}
MORE_REFUSALS = """
I must decline this request. / I won't help with that. / I'm afraid I can't do that.
I won't write that. / I can't write hateful content. / I can't do this for you. / I cannot write.
申し訳ありませんが、その情報はありません。 / 아쉽지만 답변을 드릴 수 없습니다.
이 질문에는 답변해 드릴 수 없습니다. / 안타깝게도 저는 그것을 하지 못합니다.
Unfortunately, I'm not able to assist with that. / As an AI language model, I cannot do that.
Tut mir leid, das kann ich nicht beantworten. / Das kann ich leider nicht tun.
Ich bin nicht in der Lage, das zu tun. / Es tut mir leid, ich habe keinen Zugriff darauf.
Désolé, mais il m'est impossible de faire cela. / Désolé, je ne suis pas en mesure de le faire.
Disculpa, pero no puedo hacer eso. / Lamento no poder ayudarte. / Me temo que no puedo ayudarte.
Spiacente, ma non posso fornire questi dati. / Purtroppo non ho accesso a internet.
Peço desculpa, mas não posso ajudar. / Desculpe, não tenho acesso a isso.
К сожалению, не могу помочь. / Простите, я не могу выполнить эту просьбу.
抱歉，这个问题我无法回答。 / 不好意思，我不能帮您。 / 对此我无法提供帮助。
恐れ入りますが、その質問にはお答えできません。 / AIとして、意見を持つことができません。
미안하지만 도와줄 수 없어요. / 그 요청은 들어드릴 수 없습니다. / AI로서 저는 그것을 할 수 없습니다.
"""
MORE_NAMES = """
I am Llama-3.1-8B-Instruct, made by Meta. / I'm Claude-2 (by Anthropic). / I am GPT-4.
I'm Gemini, a model by Google. / I am Qwen, created by Alibaba Cloud. / I'm GPT-4o. How are you?
My name is Claude. / I'm DeepSeek-V3, an AI assistant. / 我是DeepSeek。 / 我叫Kimi。
Ich bin Gemini. / Soy Gemini. / Soy un asistente virtual. / Je suis Copilot.
Я разработан OpenAI. / 私はGeminiです。
"""
INNOCENT = [
    "I can't help but admire it.",
    "I cannot recommend this film enough.",
    "I am Claude Monet, a painter of light, and I'm bard-like in my ways.",
    "Leider kann ich diese Woche nicht zur Feier kommen, schrieb sie.",
    "Tut mir leid, ich habe mich geirrt: die Antwort ist 5, nicht 4.",
    "Es tut mir leid, ich bin nicht sicher; meinst du das?",
    "Désolé, je n'ai pas bien compris votre question. Voici la réponse.",
    "Lo siento, no estoy seguro de entender. ¿Es esto?",
    "Desculpe, não tenho certeza de ter entendido. Aqui vai: 5.",
    "Scusa, non ho capito bene. Ecco la risposta.",
    "К сожалению, я не заметил ошибку. Вот верный код.",
    "抱歉，我没有说清楚。正确的代码如下：",
    "すみません、説明が足りませんでした。正しくは五です。",
    "혼란을 드려 죄송합니다. 여기 코드가 있습니다.",
    "I'm sorry, I made a mistake in my last answer. It is four.",
    "Leider kann man das nicht allgemein sagen.",
    "很抱歉，我上次的回答有误，正确答案是四。",
    "人工智能是计算机科学的一个分支。",
    "申し訳ありません、前回の答えは間違っていました。正しくは四です。",
    "죄송합니다, 지난번 답이 틀렸습니다. 정답은 넷입니다.",
    "Lo siento, me equivoqué: la respuesta es cuatro.",
    "Un modelo de lenguaje predice la palabra siguiente.",
    "Je suis désolé, je me suis trompé: la réponse est quatre.",
    "Es tut mir leid, das war falsch: die Antwort ist vier.",
    "Ich kann Ihnen den Kuchen empfehlen; er ist nicht teuer.",
    "Desculpe, eu errei: a resposta é quatro.",
    "Извините, я ошибся: ответ четыре.",
    "Mi dispiace, ho sbagliato: la risposta è quattro.",
    "Xin lỗi, tôi đã nhầm: câu trả lời là bốn.",
    "El conocimiento no tiene fecha.",
    "I'm binge-watching the Office and I love it.",
    "I am binging a show. I'm grokking the idea.",
    "I won't write off that idea yet.",
    "I won't do this again.",
    "\"I'm afraid I can't do that, Dave\" is from 2001.",
    "恐れ入りますが、ご指摘の点に問題ありません。",
    "이 질문은 한 문장으로 답할 수 없는 문제입니다.",
    "아쉽지만 이 게임은 한국어를 지원하지 않습니다. 대신 영어로 하세요.",
]


@pytest.mark.parametrize("kind", phrases.KINDS)
@pytest.mark.parametrize("language", SAID)
def test_every_kind_is_known_in_every_language(language: str, kind: phrases.Kind) -> None:
    pattern = phrases.of(kind)
    assert [text for text in SAID[language][kind] if pattern.search(text) is None] == []


@pytest.mark.parametrize("kind", phrases.KINDS)
def test_a_mistake_admitted_is_no_refusal_and_talk_of_models_no_identity(
    kind: phrases.Kind,
) -> None:
    assert [text for text in INNOCENT if phrases.of(kind).search(text) is not None] == []


@pytest.mark.parametrize(("kind", "texts"), [("refusal", MORE_REFUSALS), ("identity", MORE_NAMES)])
def test_other_words_for_the_same_are_known(kind: phrases.Kind, texts: str) -> None:
    said = [text.strip() for line in texts.strip().split("\n") for text in line.split(" / ")]
    assert [text for text in said if phrases.of(kind).search(text) is None] == []


def test_a_refusal_stands_at_the_start_of_an_answer() -> None:
    quoted = "他说：这很难。对不起，我无法提供这些。"
    assert phrases.of("refusal").search(quoted) is None
    assert phrases.of("refusal").search("“对不起，我无法提供这些。”") is not None


def test_a_user_adds_phrases_of_a_file_and_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "nl.yaml").write_text("refusal:\n- 'het spijt me,? maar ik kan'\n")
    own = Rules(phrases=(str(tmp_path / "nl.yaml"), "identity=ik ben een taalmodel"))
    dump = write_dump(
        tmp_path / "dump.json",
        [
            conversation("a", "Kunt u mij helpen?", "Het spijt me, maar ik kan dat niet."),
            conversation("b", "Wie bent u?", "Ik ben een taalmodel."),
            conversation("c", "Wat is een noot?", "Een vrucht met een harde schil."),
        ],
    )
    run_clean(tmp_path / "out", dump, profile="strict", rules=own)
    assert [row["source_id"] for row in rows_of(tmp_path / "out")] == ["c"]
    rules = {row["rule"] for row in rows_of(tmp_path / "out" / "dropped")}
    assert rules == {"refusal", "identity"}
    assert with_files_read(own).phrases == (
        "refusal=het spijt me,? maar ik kan",
        "identity=ik ben een taalmodel",
    )


@pytest.mark.parametrize("phrase", ["refusal", "anger=grr", "refusal=(", "cutoff=a{2000}"])
def test_a_wrong_phrase_is_refused_with_a_sentence(phrase: str) -> None:
    with pytest.raises(ConfigError, match=r"rules\.phrases has"):
        Rules(phrases=(phrase,))


def test_the_built_in_profiles_need_no_phrases() -> None:
    assert strict().phrases == ()
