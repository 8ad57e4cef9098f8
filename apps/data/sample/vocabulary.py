"""The schoolbook on words: opposites, young animals and colours."""

from apps.data.sample.relation import Relation, facts_of, pairs_of

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


def opposites() -> Relation:
    pairs = pairs_of(_OPPOSITES)
    both = pairs + [(b, a) for a, b in pairs]
    return Relation(
        name="opposite",
        category="opposites",
        facts=facts_of(both, 'The opposite of "{x}" is "{y}".', "{y} is the contrary of {x}."),
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


def young() -> Relation:
    return Relation(
        name="young",
        category="animals",
        facts=facts_of(
            pairs_of(_ANIMALS), "A young {x} is called a {y}.", "The {x} has a baby, a {y}."
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


def colours() -> Relation:
    return Relation(
        name="colour",
        category="colours",
        facts=facts_of(pairs_of(_COLOURS), "The colour of {x} is {y}.", "{y} is how {x} looks."),
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
