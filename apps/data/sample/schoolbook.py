"""A closed world of capitals, opposites, sums and the like.

Small enough that a model of three million parameters, which starts from nothing, learns it in two
minutes on two CPU cores; wide enough that it has to learn rather than copy.
"""

from apps.data.sample.relation import Fact, Relation

_COUNTRIES = """
France|Paris|Europe|French
Germany|Berlin|Europe|German
Italy|Rome|Europe|Italian
Spain|Madrid|Europe|Spanish
Portugal|Lisbon|Europe|Portuguese
Austria|Vienna|Europe|German
Poland|Warsaw|Europe|Polish
Greece|Athens|Europe|Greek
Norway|Oslo|Europe|Norwegian
Sweden|Stockholm|Europe|Swedish
Finland|Helsinki|Europe|Finnish
Denmark|Copenhagen|Europe|Danish
Hungary|Budapest|Europe|Hungarian
Romania|Bucharest|Europe|Romanian
Bulgaria|Sofia|Europe|Bulgarian
Iceland|Reykjavik|Europe|Icelandic
Japan|Tokyo|Asia|Japanese
China|Beijing|Asia|Chinese
Vietnam|Hanoi|Asia|Vietnamese
Thailand|Bangkok|Asia|Thai
Mongolia|Ulaanbaatar|Asia|Mongolian
Nepal|Kathmandu|Asia|Nepali
Turkey|Ankara|Asia|Turkish
Iran|Tehran|Asia|Persian
Iraq|Baghdad|Asia|Arabic
Egypt|Cairo|Africa|Arabic
Morocco|Rabat|Africa|Arabic
Kenya|Nairobi|Africa|Swahili
Ethiopia|Addis Ababa|Africa|Amharic
Ghana|Accra|Africa|English
Nigeria|Abuja|Africa|English
Senegal|Dakar|Africa|French
Angola|Luanda|Africa|Portuguese
Mexico|Mexico City|North America|Spanish
Cuba|Havana|North America|Spanish
Jamaica|Kingston|North America|English
Brazil|Brasilia|South America|Portuguese
Peru|Lima|South America|Spanish
Chile|Santiago|South America|Spanish
Argentina|Buenos Aires|South America|Spanish
Colombia|Bogota|South America|Spanish
Ecuador|Quito|South America|Spanish
Australia|Canberra|Oceania|English
Fiji|Suva|Oceania|English
"""

_OPPOSITES = """
hot:cold big:small fast:slow up:down light:heavy day:night open:closed happy:sad early:late
rich:poor old:young hard:soft wet:dry full:empty loud:quiet long:short high:low near:far
clean:dirty strong:weak thick:thin wide:narrow deep:shallow true:false first:last left:right
buy:sell push:pull win:lose begin:end laugh:cry remember:forget arrive:leave sharp:blunt
brave:afraid sweet:sour cheap:expensive ancient:modern smooth:rough awake:asleep
"""

_ANIMALS = """
dog:puppy cat:kitten cow:calf horse:foal sheep:lamb goat:kid pig:piglet lion:cub bear:cub
duck:duckling goose:gosling frog:tadpole kangaroo:joey deer:fawn swan:cygnet owl:owlet
rabbit:bunny seal:pup fox:kit hen:chick
"""

_COLOURS = """
grass:green snow:white coal:black blood:red butter:yellow chocolate:brown salt:white
sunflowers:yellow strawberries:red carrots:orange emeralds:green sapphires:blue flamingos:pink
elephants:grey tomatoes:red lemons:yellow spinach:green milk:white rubies:red tar:black
"""

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
        *_geography(),
        _opposites(),
        _young(),
        _colours(),
        _units(),
        _sums(),
        _tables(),
        _how_tos(),
        _code(),
        *_itself(),
    )


def _rows(table: str, separator: str) -> list[list[str]]:
    return [line.split(separator) for line in table.strip().splitlines()]


def _pairs(table: str) -> list[tuple[str, str]]:
    return [(left, right) for left, right in (word.split(":") for word in table.split())]


def _facts(rows: list[tuple[str, str]], answer: str, statement: str) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            subject=x,
            answer=_upper_first(answer.format(x=x, y=y)),
            statement=_upper_first(statement.format(x=x, y=y)),
        )
        for x, y in rows
    )


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _geography() -> tuple[Relation, ...]:
    rows = _rows(_COUNTRIES, "|")
    capital = [(r[0], r[1]) for r in rows]
    continent = [(r[0], r[2]) for r in rows]
    language = [(r[0], r[3]) for r in rows]
    return (
        Relation(
            name="capital",
            category="capitals",
            facts=_facts(
                capital, "The capital of {x} is **{y}**.", "{y} is the capital city of {x}."
            ),
            asked=(
                "What is the capital of {x}?",
                "What's the capital of {x}?",
                "Which city is the capital of {x}?",
                "Name the capital of {x}.",
                "Tell me the capital of {x}.",
                "What is {x}'s capital?",
                "What is {x}'s capital city?",
                "Do you know the capital of {x}?",
                "I forgot the capital of {x}. What is it?",
                "capital of {x}?",
                "Which city is {x}'s capital?",
                "I need {x}'s capital.",
            ),
            held_out=(
                "Can you name the capital city of {x}?",
                "Which city serves as the capital of {x}?",
            ),
        ),
        Relation(
            name="continent",
            category="continents",
            facts=_facts(continent, "{x} is in **{y}**.", "{x} lies on the continent of {y}."),
            asked=(
                "On which continent is {x}?",
                "Which continent is {x} in?",
                "What continent is {x} on?",
                "In what continent does {x} lie?",
                "Where in the world is {x}?",
                "Tell me the continent of {x}.",
                "Name the continent of {x}.",
                "{x} is on which continent?",
                "What is the continent of {x}?",
                "Do you know which continent {x} is in?",
            ),
            held_out=(
                "On what continent does {x} lie?",
                "Which continent does {x} belong to?",
            ),
        ),
        Relation(
            name="language",
            category="languages",
            facts=_facts(language, "People in {x} speak **{y}**.", "In {x} they speak {y}."),
            asked=(
                "What language do they speak in {x}?",
                "Which language is spoken in {x}?",
                "What is the language of {x}?",
                "What do people speak in {x}?",
                "Which language do people in {x} speak?",
                "Tell me the language of {x}.",
                "Name the language of {x}.",
                "What language is used in {x}?",
                "I travel to {x}. What language do they speak?",
                "Do you know the language of {x}?",
            ),
            held_out=(
                "What language would I hear in {x}?",
                "Which language do they speak in {x}?",
            ),
        ),
    )


def _opposites() -> Relation:
    pairs = _pairs(_OPPOSITES)
    both = pairs + [(b, a) for a, b in pairs]
    return Relation(
        name="opposite",
        category="opposites",
        facts=_facts(both, 'The opposite of "{x}" is "{y}".', "{y} is the contrary of {x}."),
        asked=(
            "What is the opposite of {x}?",
            "What's the opposite of {x}?",
            "Give me the opposite of {x}.",
            "Tell me the opposite of {x}.",
            "Which word is the opposite of {x}?",
            "Name the opposite of {x}.",
            'What is the opposite of "{x}"?',
            "I need the opposite of {x}.",
            "opposite of {x}?",
            "Do you know the opposite of {x}?",
        ),
        held_out=(
            "Can you tell me the opposite of {x}?",
            "What word is the opposite of {x}?",
        ),
    )


def _young() -> Relation:
    return Relation(
        name="young",
        category="animals",
        facts=_facts(
            _pairs(_ANIMALS), "A young {x} is called a {y}.", "The {x} has a baby, a {y}."
        ),
        asked=(
            "What is a young {x} called?",
            "What do you call a baby {x}?",
            "What is a baby {x} called?",
            "What is the name for a young {x}?",
            "Tell me the word for a baby {x}.",
            "How do you call a young {x}?",
            "What is the young of a {x}?",
            "Name the young of a {x}.",
            "Which word means a young {x}?",
            "Do you know what a baby {x} is called?",
        ),
        held_out=("What do we call a young {x}?", "What is the word for a baby {x}?"),
        follow_up="And a young {x}?",
    )


def _colours() -> Relation:
    return Relation(
        name="colour",
        category="colours",
        facts=_facts(_pairs(_COLOURS), "The colour of {x} is {y}.", "{y} is how {x} looks."),
        asked=(
            "What colour is {x}?",
            "What is the colour of {x}?",
            "Which colour is {x}?",
            "Tell me the colour of {x}.",
            "Name the colour of {x}.",
            "What colour has {x}?",
            "The colour of {x}, please.",
            "What's the colour of {x}?",
            "Do you know the colour of {x}?",
            "I need the colour of {x}.",
        ),
        held_out=("Which colour has {x}?", "Can you tell me the colour of {x}?"),
    )


def _units() -> Relation:
    rows = [(r[0], r[1]) for r in _rows(_UNITS, ":")]
    return Relation(
        name="unit",
        category="units",
        facts=_facts(rows, "There are {y} in {x}.", "{x} has {y}."),
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


def _sums() -> Relation:
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


def _tables() -> Relation:
    facts = tuple(
        Fact(
            subject=country,
            answer="| Country | Capital | Language |\n| --- | --- | --- |\n"
            f"| {country} | {capital} | {language} |",
            statement=f"{country}, {capital}, {language}.",
        )
        for country, capital, _, language in _rows(_COUNTRIES, "|")[:10]
    )
    return Relation(
        name="table",
        category="tables",
        facts=facts,
        asked=(
            "Show me {x} as a table.",
            "Make a table of {x}.",
            "Give me a table about {x}.",
            "Put {x} in a table.",
            "I need a table of {x}.",
            "A table of {x}, please.",
            "Show a table for {x}.",
            "Write a table about {x}.",
            "Can I have a table of {x}?",
            "Table: {x}",
        ),
        held_out=("Can you make a table about {x}?", "Please show me a table of {x}."),
    )


def _how_tos() -> Relation:
    facts = tuple(
        Fact(
            subject=row[0],
            answer="\n".join(f"{i}. {step}" for i, step in enumerate(row[1:], start=1)),
            statement=f"To {row[0]}, do this. " + " ".join(row[1:]),
        )
        for row in _rows(_HOW_TOS, "|")
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


def _code() -> Relation:
    facts: list[Fact] = []
    for subject, sentence, code in _rows(_CODE, "|"):
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
