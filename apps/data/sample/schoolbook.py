"""A closed world of capitals, opposites, sums and the like.

Small enough that a model of three million parameters, which starts from nothing, learns it in two
minutes on two CPU cores; wide enough that it has to learn rather than copy.
"""

from apps.data.sample import countries, how_tos, numbers, vocabulary
from apps.data.sample.relation import Fact, Relation

_ITSELF = (
    ("your name", "My name is Cria.", ("What is your name?", "Who are you?", "What are you called?",
     "What should I call you?", "Tell me your name.", "May I know your name?",
     "Do you have a name?", "What do people call you?"),
     ("By what name do you go?", "How may I call you?")),
    ("your work", "I answer short questions about a small world.", ("What can you do?",
     "What do you do?", "How can you help me?", "What are you good at?", "What is your job?",
     "What can I ask you?", "What is your purpose?", "Tell me what you can do."),
     ("What are you able to do?", "In what way can you help me?")),
    ("your greeting", "Hello! What would you like to know?", ("Hello!", "Hi!", "Hey there!",
     "Good morning!", "Hello there!", "Hi there!", "Good evening!", "Greetings!", "Hey!",
     "Good day!"), ("Hello again!", "Hey, good morning!")),
    ("your thanks", "You are welcome!", ("Thank you!", "Thanks!", "Thanks a lot!",
     "Thank you very much!", "Many thanks!", "That helps, thank you!", "Great, thanks!",
     "Thanks for the help!"), ("Thank you so much!", "Great, thank you!")),
    ("your size", "I am a small model that was trained on two CPU cores.", ("How big are you?",
     "Are you a large model?", "How large are you?", "What size are you?", "Are you big?",
     "How were you trained?", "What were you trained on?", "Are you a small model?"),
     ("Just how big are you?", "Are you a large or a small model?")),
)  # fmt: skip


def relations() -> tuple[Relation, ...]:
    """The whole world."""
    return (
        *countries.geography(),
        vocabulary.opposites(),
        vocabulary.young(),
        vocabulary.colours(),
        numbers.units(),
        numbers.sums(),
        countries.tables(),
        how_tos.how_tos(),
        how_tos.code(),
        *_itself(),
    )


def _itself() -> tuple[Relation, ...]:
    return tuple(
        Relation(
            name=subject.replace("your ", "self-"),
            category="itself",
            facts=(Fact(subject=subject, answer=answer, statement=f"The chatbot says: {answer}"),),
            asked=asked,
            held_out=held_out,
            follow_up=None,
            has_noise=False,
        )
        for subject, answer, asked, held_out in _ITSELF
    )
