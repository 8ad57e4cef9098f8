from apps.serve.page.messages import failure, plain_messages


def test_failures_and_empty_turns_are_never_sent_to_a_model() -> None:
    history = [
        {"role": "user", "content": [{"type": "text", "text": "one"}], "metadata": None},
        failure("The model is busy."),
        {"role": "user", "content": "two", "options": []},
        {"role": "assistant", "content": ""},
    ]
    assert plain_messages(history) == [
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
    ]
