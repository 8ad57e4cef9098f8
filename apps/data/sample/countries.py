"""The schoolbook on countries: their capitals, continents and languages."""

from apps.data.sample.relation import Fact, Relation, facts_of, rows_of

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


def geography() -> tuple[Relation, ...]:
    rows = rows_of(_COUNTRIES, "|")
    capital = [(r[0], r[1]) for r in rows]
    continent = [(r[0], r[2]) for r in rows]
    language = [(r[0], r[3]) for r in rows]
    return (
        Relation(
            name="capital",
            category="capitals",
            facts=facts_of(
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
            facts=facts_of(continent, "{x} is in **{y}**.", "{x} lies on the continent of {y}."),
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
            facts=facts_of(language, "People in {x} speak **{y}**.", "In {x} they speak {y}."),
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


def tables() -> Relation:
    facts = tuple(
        Fact(
            subject=country,
            answer="| Country | Capital | Language |\n| --- | --- | --- |\n"
            f"| {country} | {capital} | {language} |",
            statement=f"{country}, {capital}, {language}.",
        )
        for country, capital, _, language in rows_of(_COUNTRIES, "|")[:10]
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
