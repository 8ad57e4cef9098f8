"""Does the tuned model still talk of other things as its base does?

Both answered everyday questions; the base is asked, by the API, how likely it finds each answer's
tokens. A tuned model that has forgotten how to talk says what the base finds unlikely.
"""

import json
import math
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, cast

from apps.common.files import parts, storage
from apps.common.files.model_folder import text_folder
from apps.common.text.conversation import ChatTemplate
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import Tokenizer, load_tokenizer
from apps.quickstart.config import BASE_NAME, TUNED_NAME

RESULT_NAME = "everyday.json"
_TIMEOUT_S = 600
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneralChat:
    """Everyday answers of both models, as the base finds them."""

    num_questions: int
    log_likelihood: dict[str, float]
    """mean over the answers of the mean log-probability of a token under the base, by model"""

    @property
    def kept(self) -> float:
        """The likelihood of a token of the tuned model's answers, as a share of the base's own."""
        return math.exp(self.log_likelihood[TUNED_NAME] - self.log_likelihood[BASE_NAME])


def measure(dirs: Mapping[str, str], base: str, template: str, url: str) -> GeneralChat | None:
    """Ask the served base; None where the sample has no everyday questions.

    `template` names the base's chat template; `own` is its folder's. Writes everyday.json beside
    the report.
    """
    questions = _records(f"{dirs['sample']}/questions.jsonl")
    everyday = {str(q["question_id"]): q["turns"][0] for q in questions if "match" not in q}
    if not everyday:
        return None
    folder = text_folder(base)
    tokenizer = load_tokenizer(folder)
    chat = load_template(folder if template == "own" else template, tokenizer)
    means: dict[str, float] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for model in (BASE_NAME, TUNED_NAME):
            answers = _records(f"{dirs['eval']}/answers/{model}.jsonl")
            said = {str(a["question_id"]): a["turn_texts"][0] for a in answers}
            pairs = [
                (_prompt(chat, tokenizer, text), _ids(tokenizer, said[number]))
                for number, text in everyday.items()
                if said.get(number, "").strip()
            ]
            values = list(pool.map(lambda pair: _log_likelihood(pair[0], pair[1], url), pairs))
            means[model] = sum(values) / len(values) if values else -math.inf
    result = GeneralChat(num_questions=len(everyday), log_likelihood=means)
    storage.write_json(f"{dirs['eval']}/{RESULT_NAME}", {**asdict(result), "kept": result.kept})
    return result


def _records(uri: str) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], parts.records(uri))


def _prompt(chat: ChatTemplate, tokenizer: Tokenizer, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    return _ids(tokenizer, chat.render(messages, add_generation_prompt=True).text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.backend.encode(text, add_special_tokens=False).ids


def _log_likelihood(prompt: list[int], answer: list[int], url: str) -> float:
    """Mean log-probability of the answer's tokens after the prompt."""
    body = {
        "model": BASE_NAME,
        "prompt": [*prompt, *answer],
        "echo": True,
        "logprobs": 0,
        "max_tokens": 0,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        reply: Any = json.load(response)
    log_probs = reply["choices"][0]["logprobs"]["token_logprobs"][len(prompt) :]
    return sum(log_probs) / len(log_probs)
