"""The schoolbook on numbers: units and sums."""

from apps.data.sample.relation import Fact, Relation, facts_of, rows_of

_UNITS = """
a minute:60 seconds
an hour:60 minutes
a day:24 hours
a week:7 days
a year:12 months
a decade:10 years
a century:100 years
a kilometre:1000 metres
a metre:100 centimetres
a centimetre:10 millimetres
a kilogram:1000 grams
a litre:1000 millilitres
a foot:12 inches
a yard:3 feet
a dozen:12 items
a byte:8 bits
"""

_SUMS = (
    (1, 1), (2, 3), (4, 5), (6, 7), (8, 9), (3, 3), (5, 5), (7, 8), (9, 9), (2, 6), (4, 4), (1, 8),
    (3, 9), (5, 8), (6, 6), (7, 7), (2, 9), (8, 8), (10, 5), (10, 10), (12, 3), (11, 7), (15, 5),
    (13, 6), (14, 4), (20, 10), (20, 5), (30, 10), (25, 25), (50, 50),
)  # fmt: skip


def units() -> Relation:
    rows = [(r[0], r[1]) for r in rows_of(_UNITS, ":")]
    return Relation(
        name="unit",
        category="units",
        facts=facts_of(rows, "There are {y} in {x}.", "{x} has {y}."),
        asked=(
            "How long or how large is {x}?",
            "What is {x}?",
            "What is {x} in smaller units?",
            "Convert {x} to smaller units.",
            "How much is {x}?",
            "Break {x} down for me.",
            "What does {x} consist of?",
            "What makes {x}?",
            "What is in {x}?",
            "Tell me what {x} is made of.",
            "How is {x} divided?",
        ),
        held_out=("What does {x} hold?", "Tell me what is in {x}."),
    )


def sums() -> Relation:
    facts = tuple(
        Fact(
            subject=f"{a} + {b}",
            answer=f"{a} + {b} = {a + b}",
            statement=f"The sum of {a} and {b} is {a + b}.",
        )
        for a, b in _SUMS
    )
    return Relation(
        name="sum",
        category="sums",
        facts=facts,
        asked=(
            "What is {x}?",
            "How much is {x}?",
            "Compute {x}.",
            "What's {x}?",
            "Calculate {x}.",
            "{x} = ?",
            "Tell me {x}.",
            "What do I get for {x}?",
            "Work out {x}.",
            "Can you add {x}?",
        ),
        held_out=("What does {x} give?", "Please work out {x} for me."),
    )
