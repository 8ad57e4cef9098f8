"""The schoolbook on how things are done, in a household and in Python."""

from apps.data.sample.relation import Fact, Relation, rows_of

_HOW_TOS = """
boil an egg|Put the egg in boiling water.|Wait for eight minutes.|Cool it under cold water.
make tea|Boil fresh water.|Pour it over the leaves.|Wait for three minutes.
plant a tree|Dig a wide hole.|Set the roots in it.|Fill it with soil and water it.
wash a car|Rinse off the dust.|Rub it with soap.|Rinse it and dry it.
clean a window|Spray it with water and vinegar.|Wipe it from top to bottom.|Dry it with paper.
cook rice|Rinse one cup of rice.|Add two cups of water.|Simmer it for fifteen minutes.
change a light bulb|Switch off the light.|Unscrew the old bulb.|Screw in the new one.
fix a flat tyre|Take out the tube.|Patch the hole.|Pump it up again.
paint a wall|Cover the floor.|Sand the wall.|Roll on two thin coats.
fold a shirt|Lay it face down.|Fold in both sides.|Fold up the bottom half.
bake bread|Mix flour, water, salt and yeast.|Let it rise for an hour.|Bake it until it is golden.
sharpen a pencil|Put it in the sharpener.|Turn it gently.|Stop when the tip is fine.
"""

_CODE = """
reverse a list|Slice it with a negative step:|items[::-1]
sort a list|Call sorted:|sorted(items)
count the items of a list|Call len:|len(items)
add an item to a list|Call append:|items.append(item)
read a file|Open it and call read:|with open(path) as file:\\n    text = file.read()
write a file|Open it for writing:|with open(path, "w") as file:\\n    file.write(text)
loop over a list|Use a for loop:|for item in items:\\n    print(item)
define a function|Use def:|def add(a, b):\\n    return a + b
join strings|Call join on the separator:|", ".join(words)
split a string|Call split:|text.split(",")
find the largest number|Call max:|max(numbers)
add up numbers|Call sum:|sum(numbers)
check if a key exists|Use in:|if key in table:\\n    print(table[key])
catch an error|Use try and except:|try:\\n    run()\\nexcept ValueError:\\n    print("bad value")
make a dictionary|Use braces:|ages = {"ann": 31, "bob": 27}
round a number|Call round:|round(value, 2)
"""


def how_tos() -> Relation:
    facts = tuple(
        Fact(
            subject=row[0],
            answer="\n".join(f"{i}. {step}" for i, step in enumerate(row[1:], start=1)),
            statement=f"To {row[0]}, do this. " + " ".join(row[1:]),
        )
        for row in rows_of(_HOW_TOS, "|")
    )
    return Relation(
        name="how-to",
        category="how-tos",
        facts=facts,
        asked=(
            "How do I {x}?",
            "How can I {x}?",
            "Tell me how to {x}.",
            "What are the steps to {x}?",
            "Explain how to {x}.",
            "I want to {x}. What do I do?",
            "Show me how to {x}.",
            "How does one {x}?",
            "How to {x}?",
            "Give me the steps to {x}.",
        ),
        held_out=("What should I do to {x}?", "Can you explain how to {x}?"),
        follow_up="And how do I {x}?",
    )


def code() -> Relation:
    facts: list[Fact] = []
    for subject, sentence, code in rows_of(_CODE, "|"):
        text = code.replace("\\n", "\n")
        facts.append(
            Fact(
                subject=subject,
                answer=f"{sentence}\n\n```python\n{text}\n```",
                statement=f"To {subject} in Python, write this.\n{text}",
            )
        )
    return Relation(
        name="code",
        category="code",
        facts=tuple(facts),
        asked=(
            "How do I {x} in Python?",
            "How can I {x} in Python?",
            "Show me how to {x} in Python.",
            "Python: {x}",
            "What is the Python code to {x}?",
            "Write Python code to {x}.",
            "In Python, how do I {x}?",
            "I want to {x} in Python.",
            "Give me Python code to {x}.",
            "How to {x} in Python?",
        ),
        held_out=("How would I {x} using Python?", "Can you show me how to {x} in Python?"),
        follow_up="And how do I {x} in Python?",
    )
