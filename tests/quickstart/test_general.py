"""The base weighs everyday answers of both models, token by token, through its API."""

import http.server
import json
import threading
from pathlib import Path

import pytest

from apps.common.text.templates import NAMED, write_template
from apps.quickstart import general
from tests.made import byte_level_folder


class _Scores(http.server.BaseHTTPRequestHandler):
    """Says that each prompt token has log-probability -9, each answer token -len(answer)."""

    prompt_tokens: tuple[int, ...] = ()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "base" and body["echo"] and body["max_tokens"] == 0
        assert tuple(body["prompt"][: len(self.prompt_tokens)]) == self.prompt_tokens
        number = len(body["prompt"]) - len(self.prompt_tokens)
        values = [None, *[-9.0] * (len(self.prompt_tokens) - 1), *[-float(number)] * number]
        reply = json.dumps({"choices": [{"logprobs": {"token_logprobs": values}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Scores) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def write_lines(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_mean_is_taken_over_the_answer_s_tokens_alone(tmp_path, url, monkeypatch) -> None:
    base = byte_level_folder(tmp_path / "base")
    write_template(str(base), NAMED["vicuna-v1.1"])
    dirs = {"sample": str(tmp_path), "eval": str(tmp_path / "eval")}
    fact = {"question_id": 1, "turns": ["fact?"], "match": "exact", "reference": ["x"]}
    write_lines(tmp_path / "questions.jsonl", fact, {"question_id": 2, "turns": ["A fox?"]})
    tokenizer = general.load_tokenizer(str(base))
    for model, answer in (("base", "ab"), ("cria-tuned", "abcd")):
        said = {"question_id": 2, "turn_texts": [answer]}
        write_lines(path := tmp_path / f"eval/answers/{model}.jsonl", said)
        path.write_text(path.read_text() + '\n{"question_id": 2, "turn_te')  # of a killed writer
    chat = general.load_template(str(base), tokenizer)
    prompt = general._prompt(chat, tokenizer, "A fox?")
    monkeypatch.setattr(_Scores, "prompt_tokens", tuple(prompt))
    result = general.measure(dirs, str(base), "own", url)
    lengths = {
        m: len(general._ids(tokenizer, a)) for m, a in (("base", "ab"), ("cria-tuned", "abcd"))
    }
    assert result is not None and result.num_questions == 1
    assert result.log_likelihood == {model: -float(n) for model, n in lengths.items()}
    assert json.loads((tmp_path / "eval/everyday.json").read_text())["kept"] == result.kept


def test_a_sample_without_everyday_questions_is_not_weighed(tmp_path) -> None:
    write_lines(tmp_path / "questions.jsonl", {"question_id": 1, "turns": ["x"], "match": "exact"})
    assert general.measure({"sample": str(tmp_path), "eval": ""}, "none", "own", "") is None
