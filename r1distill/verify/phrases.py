"""Answers in words: what they mean where they mean one thing, and when two of them say the same."""

import re

ARTICLES = frozenset(["a", "an", "the"])
# Words that add nothing to a name or a property when they stand beside it.
FILLERS = ARTICLES | frozenset(
    (
        "is are was it its that this they will would be always wins win winner answer final option choice "
        "therefore so hence must has have does number numbers value values player team triangle solution triangles it's series "
        "sequence integral locus curve falls on"
    ).split()
)
NEGATIONS = frozenset("not no neither nor never none non cannot isn't doesn't don't without impossible".split())
NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split()
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100}  # fmt: skip
MONTHS = {
    name: number
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(),
        1,
    )
}
CIRCLED = {chr(0x2460 + n): n + 1 for n in range(20)}

# (pattern of a whole phrase in lower case, what it means); the first that matches counts
MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"(?:yes|true|correct)(?:[,:;] .*)?", "yes"),
        (r"(?:no|false|incorrect)(?:[,:;] .*)?", "no"),
        (r"(?:there (?:are|is|exists?) )?(?:no|none|not any) ?(?:such )?(?:real |integer |positive |valid |possible )*"
         r"(?:solutions?|roots?|answers?|values?|numbers?|integers?|functions?|pairs?|triples?|polynomials?)?"
         r"(?: exists?| satisf\w+.*| in .*)?", "none"),
        (r"(?:the )?(?:equation|system|inequality) has no (?:real )?(?:solutions?|roots?)", "none"),
        (r"(?:the )?(?:empty|null) set", "none"),
        (r"(?:the )?(?:(?:limit|integral|sum|value|derivative|inverse|it) )?(?:does not|doesn't|do not) exist|dne|undefined|"
         r"(?:is )?not defined|(?:it )?diverges?|divergent", "undefined"),
        (r"(?:there (?:are|is) )?(?:an )?infinite(?:ly)?(?: many)?(?: number of)? ?(?:real |integer )?"
         r"(?:solutions?|values?|pairs?|(?:of )?them)?", "infinitely many"),
        (r"(?:for )?(?:all|any|every|each)(?: of the)?(?: possible)? reals?(?: numbers?)?(?: [a-z])?|"
         r"(?:the )?(?:set of )?(?:all )?real numbers", "reals"),
        (r"(?:all |the )?(?:prime numbers?|primes)|(?:[a-z] is )(?:a )?(?:prime(?: number)?)|(?:all |any )?prime [a-z]",
         "primes"),
        (r"(?:f is )?(?:the |an )?identity(?: function)?", "identity"),
        (r"(?:all |any |the )?constant functions?", "constant functions"),
        (r"(?:a )?right angle", "right angle"),
        *(
            (rf"(?:[a-z] (?:is )?)?(?:all |any |every )?(?:the )?{words}(?: (?:integers?|numbers?))?(?: [a-z])?", said)
            for parity in ("odd", "even")
            for words, said in ((parity, parity), (f"(?:positive {parity}|{parity} positive)", f"positive {parity}"))
        ),
        (r"(?:all |any |every )?perfect squares?", "squares"),
    )
)  # fmt: skip
TEXT_COMMAND = re.compile(r"\\(?:text\w*|mathrm|mathbf|mathit|operatorname|mbox|hbox|bm|emph)\s*\{([^{}]*)\}")


def plain(text: str) -> str:
    """The words of an answer in lower case, one space apart, without LaTeX and punctuation at its ends."""
    text = TEXT_COMMAND.sub(r" \1 ", text)
    text = re.sub(r"\\[,;:! ]|\\q?quad|~|\$|\*\*|\\left|\\right", " ", text)
    text = re.sub(r"\b([ap])\.\s?m\.?", r"\1m", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", ":", text)
    return " ".join(text.replace("’", "'").replace("{:}", ":").lower().split()).strip(" .,;:!?\"'`*")


def meaning(text: str) -> str | None:
    """What a phrase means if it is one of those known to mean one thing, else None."""
    words = re.sub(r" (?:is|are) the only (?:solutions?|functions?|such \w+|ones?|possibilit\w+)$", "", plain(text))
    if not words or len(words) > 120 or words in (r"\emptyset", r"\varnothing", "∅"):
        return "none" if words else None
    if words == r"\{ \}" or words == r"\{\}":
        return "none"
    return next((said for pattern, said in MEANINGS if pattern.fullmatch(words)), None)


def number_word(text: str) -> int | None:
    """`seven`, `twenty-one`, `negative three`."""
    parts = plain(text).replace("-", " ").split()
    if parts[:1] in (["negative"], ["minus"]):
        number = number_word(" ".join(parts[1:])) if parts[1:2] not in (["negative"], ["minus"]) else None
        return None if number is None else -number
    if not parts or len(parts) > 2 or any(part not in NUMBER_WORDS for part in parts):
        return None
    numbers = [NUMBER_WORDS[part] for part in parts]
    if len(numbers) == 1:
        return numbers[0]
    if numbers[0] >= 20 and numbers[0] % 10 == 0 and 1 <= numbers[1] <= 9:
        return sum(numbers)
    return numbers[0] * 100 if numbers[1] == 100 and numbers[0] < 10 else None


# words that turn a number into another one, by opposites
POLARITY = {
    **dict.fromkeys("increase increased rise rises rose gain gained profit more up upward upwards longer taller north east left "
                    "clockwise above before earlier larger greater higher".split(), 1),
    **dict.fromkeys("decrease decreased fall falls fell drop drops dropped loss lost lose less fewer down downward downwards "
                    "shorter south west right counterclockwise anticlockwise below after later smaller lower".split(), -1),
}  # fmt: skip


def contradict(first: str, second: str) -> bool:
    """Whether one text says "increase" where the other says "decrease"."""
    ours, theirs = (
        {POLARITY[word] for word in re.findall(r"[a-z]+", plain(text)) if word in POLARITY} for text in (first, second)
    )
    return bool(ours and theirs) and ours.isdisjoint(theirs)


def clock_time(text: str) -> tuple[int, bool] | None:
    """(minutes after midnight, whether it says which half of the day) of `3:30 p.m.`, `15:30`, `quarter to eight`."""
    words = re.sub(r"\bo'?clock\b", "", plain(text)).strip()
    if match := re.fullmatch(r"(\d{1,2})(?::(\d\d))? ?(?:(am|pm)|(noon|midnight))?", words):
        hour, minute = int(match[1]), int(match[2] or 0)
        if hour > 24 or minute > 59 or not (match[2] or match[3] or match[4]):
            return None
        if match[3] or match[4]:
            if not 1 <= hour <= 12:
                return None
            afternoon = match[3] == "pm" or match[4] == "noon"
            return (hour % 12 + 12 * afternoon) * 60 + minute, True
        return hour * 60 + minute, hour > 12
    if words in ("noon", "midnight"):
        return (720 if words == "noon" else 0), True
    if match := re.fullmatch(r"(quarter|half|\w+) (past|to|after|before) (\w+)", words):
        minute = {"quarter": 15, "half": 30}.get(match[1], NUMBER_WORDS.get(match[1]))
        hour = NUMBER_WORDS.get(match[3])
        if minute is None or hour is None or not 1 <= hour <= 12:
            return None
        return (hour * 60 + (minute if match[2] in ("past", "after") else -minute)) % 720, False
    return None


def calendar_date(text: str) -> tuple[int, int, int | None] | None:
    """(month, day, year) of `March 14, 2023`, `14 March 2023`, `March 14th`."""
    words = (
        re.sub(r"(\d)(?:st|nd|rd|th)\b", r"\1", plain(text).removeprefix("the "))
        .replace(",", " ")
        .replace(" of ", " ")
        .split()
    )
    if not 2 <= len(words) <= 3 or sum(word in MONTHS for word in words) != 1:
        return None
    month = next(MONTHS[word] for word in words if word in MONTHS)
    rest = [word for word in words if word not in MONTHS]
    if not all(word.isdigit() and len(word) < 5 for word in rest):
        return None
    numbers = [int(word) for word in rest]
    day = numbers[0]
    year = numbers[1] if len(numbers) == 2 else None
    return (month, day, year) if 1 <= day <= 31 else None


def content_words(text: str) -> list[str] | None:
    """The words that carry a phrase, None where it is not made of words alone."""
    words = plain(text)
    if not re.fullmatch(r"[a-zà-ÿ' -]+", words):
        return None
    return [word for word in words.replace("-", " ").split() if word not in FILLERS]


def same_phrase(first: str, second: str) -> bool | None:
    """Whether two phrases say the same; None where one of them is not made of words."""
    ours, theirs = content_words(first), content_words(second)
    if ours is None or theirs is None or not ours or not theirs:
        return None
    if [word for word in ours if word in NEGATIONS] != [word for word in theirs if word in NEGATIONS]:
        return False
    return [stem(word) for word in ours] == [stem(word) for word in theirs]


def stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word


def circled(text: str) -> frozenset[int] | None:
    """The numbers of `①③`, as some Chinese sets write their choices."""
    marks = re.sub(r"[\s,、]|\\text|[{}$]", "", text)
    return frozenset(CIRCLED[mark] for mark in marks) if marks and all(mark in CIRCLED for mark in marks) else None
