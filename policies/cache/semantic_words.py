"""The words of English that turn a question into another one."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the my your our their his her its some of in on for")

JOINTS = _words("to into from than over by before after beats versus")
"""What has a direction: A to B isn't B to A."""

NEGATORS = _words("""
    not no never none neither nor nobody nothing nowhere without except unless cannot unable avoid besides
    fail fails failed failing impossible instead non prevent stop
""")

PRONOUNS = _words("i i'd i'm i've i'll ok")
"""What has a capital and is no name."""

_COUNTED = """
    zero - two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
"""One is left out: it's a pronoun more often than a number."""

NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED.split()) if word != "-"} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "dozen": "12",
    "half": "0.5",
    "both": "2",
    "twice": "2",
    "first": "1",
    "second": "2",
    "third": "3",
    "fourth": "4",
    "fifth": "5",
}

_PAIRS = """
    enable disable | activate deactivate | enable deactivate | activate disable | on off | add remove
    add delete | create delete | open close | start stop | start end | begin end | increase decrease
    increase reduce | raise lower | raise reduce | larger smaller | bigger smaller | maximum minimum
    max min | most least | best worst | highest lowest | tallest shortest | longest shortest
    largest smallest | oldest newest | oldest youngest | fastest slowest | first last | before after
    above below | over under | up down | left right | in out | inside outside | install uninstall
    import export | upload download | encode decode | encrypt decrypt | lock unlock
    connect disconnect | subscribe unsubscribe | buy sell | borrow lend | send receive | push pull
    accept reject | allow deny | allow forbid | allow block | include exclude | show hide
    expand collapse | win lose | pass fail | hot cold | boiling freezing | cheap expensive
    cheapest dearest | easy hard | safe dangerous | legal illegal | public private | male female
    boy girl | man woman | sunrise sunset | day night | morning evening | arrive depart
    advantages disadvantages | pros cons | benefits risks | singular plural | synonym antonym
    deposit withdraw | marry divorce | hire fire | freeze thaw | gain lose | more less | more fewer
    top bottom | north south | east west | mild severe | simple detailed | celsius fahrenheit
    meters feet | miles kilometers | pounds kilograms | who when | who where | when where | when why
    where why | who why
"""

OPPOSITES = frozenset(
    (one, other)
    for line in _PAIRS.strip().splitlines()
    for pair in line.split("|")
    for one, other in [pair.split()]
)
"""Where one text says the one and the other text the other, they ask for different things."""
