"""Tests that values that name the same are grouped, and others are not."""

from __future__ import annotations

from random import Random
from uuid import UUID

import pytest

from chordwise.domain.entities import Action, Decision, group
from chordwise.domain.entities import entities as replay
from chordwise.domain.entities.spellings import EntityKind
from tests.fakes.entity_pairs import Names, pairs_of, scores

ORGANIZATIONS, PEOPLE, PLACES = EntityKind.ORGANIZATIONS, EntityKind.PEOPLE, EntityKind.PLACES

# Names to which no rule was fitted.
HELD_OUT = Names(
    organizations=(
        *("Pacific Gas and Electric", "Archer Daniels Midland", "Bristol Myers Squibb"),
        *("Union Bank of Switzerland", "Commonwealth Edison", "Fresenius Medical Care"),
        *("Rheinmetall", "Kühne und Nagel", "Assicurazioni Generali", "Koninklijke Ahold"),
        *("University of Edinburgh", "University of Chicago", "Smith and Nephew"),
        *("Northwestern Mutual Life Insurance", "Tokio Marine Holdings", "Dai Nippon Printing"),
        *("Hindustan Petroleum", "Grupo Financiero Banorte", "Électricité de France"),
        *("Schweizerische Bundesbahnen", "Österreichische Post", "Skandinaviska Enskilda Banken"),
        *("Advanced Micro Devices", "Automatic Data Processing", "Cincinnati Financial"),
        *("Freeport Manufacturing", "Halliburton", "Eastman Kodak", "Sherwin Williams"),
        *("Teledyne Technologies", "Rockwell Automation Systems", "Warner Brothers"),
        *("Consumers Energy Management", "Prudential International", "Jardine Industries"),
        *("Carnegie Institute", "National Geographic Partners", "Boston Scientific Group"),
        *("Ingersoll Rand", "Vulcan Materials", "Church and Dwight", "Nordstrom", "Perkin Elmer"),
    ),
    people=(
        *("Franz Schubert", "Clara Schumann", "Ludwig Wittgenstein", "Hannah Arendt"),
        *("Nelson Mandela", "Winston Spencer Churchill", "Margaret Thatcher", "Indira Gandhi"),
        *("Pablo Neruda", "José Saramago", "Ingmar Bergman", "Astrid Lindgren", "Edvard Munch"),
        *("Thomas Alva Edison", "Nikola Tesla", "Rachel Carson", "Charles Darwin", "Niels Bohr"),
        *("Werner Heisenberg", "Erwin Schrödinger", "Emmy Noether", "Carl Friedrich Gauß"),
        *("Leonhard Euler", "Évariste Galois", "Ada Lovelace", "Claude Shannon", "Toni Morrison"),
        *("Virginia Woolf", "Charlotte Brontë", "Oscar Wilde", "Simón Bolívar", "Louis Armstrong"),
        *("Ella Fitzgerald", "Dave Brubeck", "Miles Davis", "Stanisław Lem"),
    ),
    places=(
        *(("Houston", "Texas"), ("Toledo", "Ohio"), ("Orlando", "Florida"), ("Eugene", "Oregon")),
        *(("Rockford", "Illinois"), ("Bordeaux", "France"), ("Savannah", "Georgia")),
        *(("Nürnberg", "Germany"), ("Göteborg", "Sweden"), ("Łódź", "Poland"), ("Málaga", "Spain")),
        *(("Liverpool", "England"), ("Brisbane", "Australia"), ("Nagasaki", "Japan")),
        *(("Cedar Rapids", "Iowa"), ("Lewiston", "Maine"), ("Antwerp", "Belgium")),
    ),
    romanized=(
        ("Фёдор Достоевский", "Fyodor Dostoevsky", "Fjodor Dostojewskij"),
        ("Антон Чехов", "Anton Chekhov", "Anton Tschechow"),
        ("Сергей Прокофьев", "Sergei Prokofiev", "Sergey Prokofyev"),
        ("Дмитрий Менделеев", "Dmitri Mendeleev", "Dmitrij Mendelejew"),
        ("Владимир Набоков", "Vladimir Nabokov", "Wladimir Nabokow"),
        ("Андрей Сахаров", "Andrei Sakharov", "Andrej Sacharow"),
        ("Μίκης Θεοδωράκης", "Mikis Theodorakis"),
        ("Тарас Шевченко", "Taras Shevchenko"),  # noqa: RUF001 - Cyrillic
    ),
    alike={
        ORGANIZATIONS: (
            *(("Bank of America", "Bank of Armenia"), ("Bank of Ireland", "Bank of Iceland")),
            *(("First Republic Bank", "First Republic Trust"), ("Eastern Bank", "Western Bank")),
            *(("National Bank of Austria", "National Bank of Australia"),),
            *(("Standard Chartered", "Standard Charter Oil"), ("Alpha Capital", "Alpine Capital")),
            *(("Central Bank of Iran", "Central Bank of Iraq"), ("Ford Motor", "Ford Foundation")),
            *(("Summit Partners", "Summer Partners"), ("Pioneer Fund 12", "Pioneer Fund 21")),
            *(("Toshiba", "Toshiba Medical"), ("Chase Manhattan Bank", "Chase Bank")),
            *(("Nippon Steel", "Nippon Paint"), ("Mercury Metals", "Mercury Medals")),
            *(("State Bank of India", "Bank of India"), ("Hanover Fire", "Hanover Life")),
            *(("Tyson Foods", "Dyson Foods"), ("Continental Oil", "Continental Air")),
        ),
        PEOPLE: (
            *(("Martin Anderson", "Martin Andersen"), ("Julian Moore", "Juliana Moore")),
            *(("Stefan Meyer", "Stefan Meier"), ("Michael Douglas", "Michelle Douglas")),
            *(("Francis Bacon", "Frances Bacon"), ("Henry Thomas", "Thomas Henry")),
            *(("John D. Rockefeller", "John F. Rockefeller"), ("Paul Klein", "Paula Klein")),
            *(("Sean Peterson", "Sean Pederson"), ("Anna Schmidt", "Anna Schmitt")),
        ),
        PLACES: (
            *(("Mauritania", "Mauritius"), ("Virginia", "West Virginia"), ("Mali", "Malta")),
            *(("Slovakia", "Slovenia"), ("Gambia", "Zambia"), ("Iowa City", "Ohio City")),
            *(("Georgia", "Georgetown"), ("North Dakota", "South Dakota"), ("Congo", "Togo")),
        ),
    },
)


def entities(
    values: list[str], kind: EntityKind, known: dict[str, int] | None = None
) -> list[set[str]]:
    """Return the values of each entity."""
    joins = group(dict.fromkeys(values, 1), kind, known).joins
    groups: dict[str, set[str]] = {}
    for value in values:
        head = value
        while head in joins and joins[head][0] != head:
            head = joins[head][0]
        groups.setdefault(head, {head}).add(value)
    return sorted(groups.values(), key=min)


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_in_one_column(kind: EntityKind, seed: int) -> None:
    """Each pair of names in a column of all pairs is judged rightly, but for few."""
    pairs = pairs_of(kind, HELD_OUT, Random(seed))  # noqa: S311 - no secrets
    groups = entities(list(dict.fromkeys(v for pair in pairs for v in pair[:2])), kind)
    number = {value: place for place, values in enumerate(groups) for value in values}

    precision, f1, wrong = scores(pairs, lambda a, b: number[a] == number[b])

    assert precision >= 0.99, wrong
    assert f1 >= 0.95, wrong


@pytest.mark.parametrize("kind", EntityKind)
def test_pairs_alone(kind: EntityKind) -> None:
    """Each pair of names is judged rightly as the only values of a column, but for few."""
    pairs = pairs_of(kind, HELD_OUT, Random(4))  # noqa: S311 - no secrets

    precision, f1, wrong = scores(pairs, lambda a, b: len(entities([a, b], kind)) == 1)

    assert precision >= 0.99, wrong
    assert f1 >= 0.95, wrong


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ORGANIZATIONS, ["ACME Corp.", "Acme Corporation", "ACME CORP", "Acme"]),
        (ORGANIZATIONS, ["Acme Inc. (“Acme”)", "Acme, Inc., a Delaware firm", "The Acme Inc"]),
        (ORGANIZATIONS, ["Fund 2 LP", "Fund II, L.P.", "Fund Two LP"]),
        (ORGANIZATIONS, ["Gen. Electric Co", "General Electric Company"]),
        (ORGANIZATIONS, ["ПАО «Газпром»", "Gazprom PAO"]),
        (ORGANIZATIONS, ["J.P. Morgan & Co.", "J. P. Morgan", "JP Morgan Company"]),
        (PEOPLE, ["Smith, John A.", "John Smith", "J. Smith", "Dr. John Smith, MD"]),
        (PEOPLE, ["John Smith, Jr.", "Smith, Jr., John", "John Smith Junior"]),
        (PLACES, ["New York, NY", "State of New York", "NY", "New York"]),
        (PLACES, ["St. Louis, Mo.", "Saint Louis, Missouri", "Saint Louis, MO, USA"]),
    ],
)
def test_one_entity(kind: EntityKind, values: list[str]) -> None:
    """Spellings of one name are one entity."""
    assert entities(values, kind) == [set(values)]


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        (ORGANIZATIONS, ["Acme LLC", "Acme Inc.", "Acme"], "another form"),
        (ORGANIZATIONS, ["IBM", "Italian Bread Makers", "Indian Border Mills"], "an acronym"),
        (PEOPLE, ["J. Doe", "Jane Doe", "John Doe"], "initials"),
        (PEOPLE, ["John Smith", "John Smith Jr.", "John Smith Sr."], "without a generation"),
        (PEOPLE, ["Peter Hansen", "Peter Hanson"], "a typing error"),
        (PLACES, ["Paris", "Paris, France", "Paris, Texas"], "another form"),
    ],
)
def test_doubtful_pairs_stay_apart(kind: EntityKind, values: list[str], reason: str) -> None:
    """What may name the same, or one of several, is left for a decision, with its reason."""
    grouping = group(dict.fromkeys(values, 1), kind)

    assert all(value == head for value, (head, _) in grouping.joins.items())
    assert any(pair.reason.startswith(reason) for pair in grouping.doubtful)


def test_generations_keep_people_among_organizations_apart() -> None:
    """The parties of a contract can be people."""
    grouping = group({"John Smith Jr.": 1, "John Smith Sr.": 1}, ORGANIZATIONS)

    assert grouping.doubtful == []
    assert len({head for head, _ in grouping.joins.values()}) == 2


def test_earlier_entities_stay() -> None:
    """A new value joins an entity, and none of two that it fits; entities are never joined."""
    known = {"Acme Corp.": 1, "Acme Corporation": 2, "Widget Works": 3}
    values = [*known, "ACME CORP", "Widgit Works Inc."]

    grouping = group(dict.fromkeys(values, 1), ORGANIZATIONS, known)

    assert grouping.joins == {
        "ACME CORP": ("ACME CORP", ""),
        "Widgit Works Inc.": ("Widget Works", "a typing error"),
    }
    assert {(pair.value, pair.other) for pair in grouping.doubtful} == {
        ("ACME CORP", "Acme Corp."),
        ("ACME CORP", "Acme Corporation"),
    }


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize(
    "value", ["", " ", "—", "The", "Jr.", ", ,", "(a)", "GmbH", "x" * 300, "№ ½", "🙂"]
)
def test_any_value_is_an_entity(kind: EntityKind, value: str) -> None:
    """A value that is no name is an entity of its own."""
    assert group({value: 1, "Other Name": 1}, kind).joins[value] == (value, "")


def replayed(values: str, *decisions: tuple[Action, str]) -> list[str]:
    """Return the entities of values: `a b>a` are two values, of which the second joins the first.

    A number is the place of a decision, which is made there.
    """
    joins: dict[str, tuple[UUID, str]] = {}
    made: list[Decision] = []
    for number, word in enumerate(values.split(), start=1):
        if word.isdigit():
            action, names = decisions[int(word)]
            made.append(Decision(UUID(int=number), action, names.split()))
        else:
            value, _, other = word.partition(">")
            joins[value] = UUID(int=number), other or value
    groups: dict[UUID, str] = {}
    for value, entity in replay(joins, made).items():
        groups[entity] = "".join(sorted(groups.get(entity, "") + value))
    return sorted(groups.values())


@pytest.mark.parametrize(
    ("values", "decisions", "expected"),
    [
        ("a b>a c", [], ["ab", "c"]),
        ("a b>a c 0", [(Action.MERGE, "a c")], ["abc"]),
        ("a b>a c 0 d>c", [(Action.MERGE, "a c")], ["abcd"]),
        ("a b>a c>a 0 d>c e>a", [(Action.SPLIT, "a c")], ["abe", "cd"]),
        ("a b>a 0 c>a", [(Action.SPLIT, "b a")], ["ac", "b"]),
        ("a b 0 1", [(Action.MERGE, "a b"), (Action.SPLIT, "a b")], ["a", "b"]),
        ("a b 0 1", [(Action.SPLIT, "a b"), (Action.MERGE, "a b")], ["ab"]),
        ("0 a b c>b", [(Action.MERGE, "a b")], ["abc"]),
        ("a b 0", [(Action.MERGE, "a z")], ["a", "b"]),
    ],
)
def test_decisions_are_replayed(
    values: str, decisions: list[tuple[Action, str]], expected: list[str]
) -> None:
    """A value follows the one that it joined, from when it joined; later decisions win."""
    assert replayed(values, *decisions) == expected
