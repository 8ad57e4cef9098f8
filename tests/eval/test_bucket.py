"""An evaluation whose folder is a bucket: what a lost machine leaves behind is all that it paid."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from apps.common.files import storage
from tests.eval.commands import command
from tests.eval.scripted_judge import Script
from tests.eval.test_answer_to_report import QUESTIONS, contestant


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"eval-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return f"s3://{name}"


def test_answers_are_kept_in_a_bucket(bucket: str, tmp_path: Path, serve) -> None:
    served = serve(Script(answer=contestant))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    asked = ["answer", "--questions", str(questions), "--out", f"{bucket}/eval"]
    for _ in range(2):
        assert command(*asked, "--model", f"base={served.url}", f"tuned={served.url}") == 0
        assert served.requests.total() == 6
    answers = storage.read_bytes(f"{bucket}/eval/answers/tuned.jsonl").splitlines()
    assert {json.loads(line)["question_id"] for line in answers} == {"capital", "sum"}
