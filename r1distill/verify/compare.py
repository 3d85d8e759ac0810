"""Whether two answers say the same. True and False are sure; None is left to others (words, Math-Verify).

An answer may be a sentence, several values, a set, a family of values: each rule knows one shape, and the first that is
sure decides.
"""

from collections.abc import Callable, Sequence

from r1distill.verify.answer import read
from r1distill.verify.arrangements import vector
from r1distill.verify.equations import base_name
from r1distill.verify.families import PARAMETERS, same_affine_family, same_integer_family
from r1distill.verify.items import MAX_ITEMS, every, same_item, same_multiset, signs
from r1distill.verify.nodes import Answer, Node, Verdict, is_scalar, letters_of, number_node
from r1distill.verify.numeric import Unknown
from r1distill.verify.realset import real_set
from r1distill.verify.units import measure


def same_answer(gold: str, answer: str) -> Verdict:
    """Raises Unreadable where one of them is no mathematics."""
    return compare(read(gold), read(answer))


def compare(gold: Answer, answer: Answer) -> Verdict:
    for rule in RULES:
        try:
            verdict = rule(gold, answer)
        except Unknown:  # a number of thousands of digits beside one that is not exact
            continue
        if verdict is not None:
            return verdict
    return None


# ---------------------------------------------------------------- rules on whole answers


def by_meaning(gold: Answer, answer: Answer) -> Verdict:
    """Phrases, times and dates."""
    ours, theirs = only(gold), only(answer)
    if ours is None or theirs is None:
        has_phrase = any(item.kind == "phrase" for item in (ours, theirs) if item is not None)
        return False if has_phrase and not families(gold, answer) else None
    if ours.kind == theirs.kind and ours.kind in ("phrase", "date"):
        if ours.kind == "phrase" and {ours.data, theirs.data} in ({"odd", "positive odd"}, {"even", "positive even"}):
            return True  # what is asked for says which numbers are meant
        return ours.data == theirs.data
    if ours.kind == theirs.kind == "time":
        (first, first_sure), (second, second_sure) = ours.data, theirs.data
        return first == second if first_sure and second_sure else first % 720 == second % 720
    for one, other in ((ours, theirs), (theirs, ours)):
        if one.kind == "time":
            minutes, _ = one.data
            if other.kind == "relation" and len(other.args) == 2:
                other = other.args[1]
            if other.kind == "ratio" and all(part.kind == "number" for part in other.args):
                hour, minute = (part.data[0] for part in other.args[:2])
                return (hour * 60 + minute) % 720 == minutes % 720 and (hour <= 12 or hour * 60 + minute == minutes)
            return False
        if one.kind == "phrase":
            return phrase_is(one.data, other)
    return None


def phrase_is(said: str, node: Node) -> Verdict:
    if said == "none":
        return (node.kind == "named" and node.data == "empty") or (node.kind == "set" and not node.args)
    if said == "reals":
        found = real_set(Answer((node,)))
        return found is not None and found.is_everything()
    if said == "right angle":
        return node.kind == "degrees" and node.args[0] == number_node("90")
    if said == "identity":
        return node.kind == "relation" and node.args[0].kind == "call" and node.args[1:] == node.args[0].args
    if said == "constant functions":
        is_function = node.kind == "relation" and node.args[0].kind == "call"
        return is_function and node.args[1].kind == "letter" and node.args[1] not in node.args[0].args
    if said in (*PARITIES, "squares", "primes"):
        return None
    return False


def by_parts(gold: Answer, answer: Answer) -> Verdict:
    """(a) 3 (b) 4 is ordered; what answers it has to have as many parts in its order."""
    if "parts" not in gold.separators | answer.separators:
        return None
    if len(gold.items) != len(answer.items):
        return False
    return every(same_item(ours, theirs) for ours, theirs in zip(gold.items, answer.items, strict=True))


def by_labels(gold: Answer, answer: Answer) -> Verdict:
    """minimum 2, maximum 7: by their labels, whatever the order; 25 dogs and 10 cats likewise."""
    ours, theirs = labelled(gold), labelled(answer)
    if ours is None or theirs is None:
        return None
    if ours.keys() == theirs.keys():
        return every(same_item(node, theirs[name]) for name, node in ours.items())
    if len(ours) != len(theirs):
        return False
    if matched := match_initials(list(ours), list(theirs)):
        return every(same_item(ours[mine], theirs[other]) for mine, other in matched)
    return None


PARITIES = ("odd", "even", "positive odd", "positive even")
LABEL_WORDS = {
    "min": "minimum",
    "max": "maximum",
    "smallest": "minimum",
    "largest": "maximum",
    "least": "minimum",
    "greatest": "maximum",
}


def labelled(answer: Answer) -> dict[str, Node] | None:
    """The values by their labels, if every item has one and there are two or more."""
    found: dict[str, Node] = {}
    for item in answer.items:
        if item.kind == "labelled":
            name, node = item.data, item.args[0]
        elif item.kind == "quantity" and measure(item.data) is None:
            name, node = item.data.rstrip("s"), item.args[0]
        elif item.kind == "relation" and item.data == ("=",) and item.args[0].kind in ("letter", "call", "function"):
            name, node = str(item.args[0].data), item.args[1]
        else:
            return None
        name = LABEL_WORDS.get(name, name)
        if name in found:
            return None
        found[name] = node
    return found if len(found) > 1 else None


def match_initials(ours: list[str], theirs: list[str]) -> list[tuple[str, str]] | None:
    """center ~ C, radius ~ r, quotient ~ q: each label is the first letter of the other."""
    pairs = []
    left = list(theirs)
    for mine in ours:
        found = [other for other in left if other[:1].lower() == mine[:1].lower() and min(len(mine), len(other)) == 1]
        if len(found) != 1 or len(mine) == len(found[0]):
            return None
        pairs.append((mine, found[0]))
        left.remove(found[0])
    return pairs


def by_names(gold: Answer, answer: Answer) -> Verdict:
    """x = 1, y = 2 and (x, y) = (1, 2): by their names; without names in the order of a tuple."""
    ours, theirs = named_values(gold), named_values(answer)
    if ours is None and theirs is None:
        return None
    if ours is not None and theirs is not None:
        if ours.keys() != theirs.keys():
            return None
        return every(same_item(node, theirs[name]) for name, node in ours.items())
    names = ours if ours is not None else theirs
    other = answer if ours is not None else gold
    assert names is not None
    if (node := only(other)) is not None and node.kind == "set":
        return False  # which of them is x?
    plain = tuple_items(other) if len(names) > 1 else None
    if plain is None or len(plain) != len(names):
        return None
    in_order = [node for _, node in sorted(names.items())] if list(names) != sorted(names) else list(names.values())
    pairs = zip(in_order, plain, strict=True)
    return every(same_item(one, two) if ours is not None else same_item(two, one) for one, two in pairs)


def named_values(answer: Answer) -> dict[str, Node] | None:
    """The values by their letters: x = 1, y = 2; (x, y) = (1, 2); x = y = 0. None for anything else."""
    found: dict[str, Node] = {}
    if len(answer.items) == 1 and answer.items[0].kind == "relation":
        item = answer.items[0]
        if item.data == ("=",) and item.args[0].kind == "tuple" and item.args[1].kind == "tuple":
            names, values = item.args[0].args, item.args[1].args
            if len(names) == len(values) and all(name.kind == "letter" for name in names):
                return {name.data: node for name, node in zip(names, values, strict=True)}
            return None
    for item in answer.items:
        if item.kind != "relation" or set(item.data) != {"="} or item.args[0].kind != "letter":
            return None
        for name in item.args[:-1]:
            if name.kind != "letter":
                break
            if name.data in found:
                return None
            found[name.data] = item.args[-1]
    return found if len(found) > 1 else None


def tuple_items(answer: Answer) -> Sequence[Node] | None:
    node = only(answer)
    if node is None:
        return (
            answer.items if all(is_scalar(item) for item in answer.items) and answer.separators <= {",", ";"} else None
        )
    return node.args if node.kind == "tuple" else vector(node)


def by_families(gold: Answer, answer: Answer) -> Verdict:
    """Answers with a letter that runs through the integers or the reals."""
    if not families(gold, answer):
        return True if renamed_parameter(gold, answer) else None
    for rule in (same_integer_family, same_affine_family):
        verdict = rule(gold, answer)
        if verdict is not None:
            return verdict
    return None


def renamed_parameter(gold: Answer, answer: Answer) -> bool:
    """n = 4k + 1 and n = 4m + 1, where nothing says what k and m are."""
    ours, theirs = only(gold), only(answer)
    if ours is None or theirs is None or any(node.kind != "relation" or node.data != ("=",) for node in (ours, theirs)):
        return False
    if ours.args[0] != theirs.args[0] or ours.args[0].kind != "letter":
        return False
    letters = [letters_of(node.args[1]) for node in (ours, theirs)]
    if letters[0] == letters[1] or any(len(each) != 1 or not each <= PARAMETERS for each in letters):
        return False
    return same_integer_family(gold, answer) is True


def families(gold: Answer, answer: Answer) -> bool:
    return any(
        each.conditions
        or any(item.kind in ("congruence", "divides") or has_constants(item) for item in each.items)
        or any(item.kind == "phrase" and item.data in (*PARITIES, "squares") for item in each.items)
        for each in (gold, answer)
    )


def has_constants(node: Node) -> bool:
    """Whether a constant of integration may be meant: C, K, C_1."""
    return any(name in ("C", "K", "c") or name.startswith(("C_", "c_")) for name in letters_of(node))


def by_real_sets(gold: Answer, answer: Answer) -> Verdict:
    """Intervals, inequalities, set-builders, unions."""
    ours, theirs = real_set(gold), real_set(answer)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        known, other = (ours, answer) if ours is not None else (theirs, gold)
        theirs_too = real_set(other, tuples=True)
        if theirs_too is None or known is None:
            return False if is_finite(other) else None
        return known.same_as(theirs_too)
    if ours.letter and theirs.letter and ours.letter != theirs.letter:
        return False
    return ours.same_as(theirs)


def is_finite(answer: Answer) -> bool:
    return all(is_scalar(item) or item.kind == "set" for item in answer.items)


def by_items(gold: Answer, answer: Answer) -> Verdict:
    """One thing against one thing."""
    ours, theirs = only(gold), only(answer)
    if ours is None or theirs is None:
        return None
    if not conditions_allow(gold, answer):
        return False
    return same_item(ours, theirs, discrete=True if integer_conditions(gold, answer) else None)


def conditions_allow(gold: Answer, answer: Answer) -> bool:
    """What restricts letters must restrict them alike; that they are real or integers may be left out."""
    ours, theirs = bounds(gold), bounds(answer)
    if not ours and not theirs:
        return True
    return ours == theirs


def bounds(answer: Answer) -> set[Node]:
    return {
        condition
        for condition in answer.conditions
        if condition.data != ("∈",) or condition.args[1].kind != "named" or condition.args[1].data in ("R+", "R*")
    }


def integer_conditions(gold: Answer, answer: Answer) -> bool:
    return any(
        condition.data == ("∈",)
        and condition.args[1].kind == "named"
        and condition.args[1].data in ("Z", "N", "Z+", "Z0+")
        for condition in (*gold.conditions, *answer.conditions)
    )


def by_solutions(gold: Answer, answer: Answer) -> Verdict:
    """Several solutions, as a set or one after another: the same ones, in any order."""
    ours, theirs = solutions(grouped(gold)), solutions(grouped(answer))
    if ours is None or theirs is None:
        return None
    (ours_list, ours_name), (theirs_list, theirs_name) = ours, theirs
    if ours_name and theirs_name and ours_name != theirs_name:
        return False
    if not conditions_allow(gold, answer):
        return False
    return same_multiset(ours_list, theirs_list)


def solutions(answer: Answer) -> tuple[list[Node], str] | None:
    """(the values, the name that all of them have, or "")."""
    found: list[Node] = []
    names: set[str] = set()
    for item in answer.items:
        name, node = "", item
        if item.kind == "relation":
            if item.data in (("=",), ("≈",)) and item.args[0].kind in ("letter", "call"):
                name, node = base_name(item.args[0]), item.args[1]
                if item.args[0].kind == "call":
                    node = item
            elif item.data == ("∈",) and item.args[0].kind in ("letter", "tuple") and item.args[1].kind == "set":
                name, node = base_name(item.args[0]), item.args[1]
            elif item.data == ("=",) and item.args[0].kind == "tuple" and item.args[1].kind == "tuple":
                name, node = "", item.args[1]
            else:
                return None
        if node.kind == "labelled":
            return None
        names.add(name)
        parts = node.args if node.kind == "set" else (node,)
        for part in parts:
            found += signs(part)
    names.discard("")
    if len(names) > 1 or len(found) > MAX_ITEMS:
        return None
    return found, next(iter(names), "")


def grouped(answer: Answer) -> Answer:
    """x = 1, y = 2 or x = 3, y = 4 as two tuples, in the order of the letters."""
    groups: list[dict[str, Node]] = [{}]
    for item in answer.items:
        if item.kind != "relation" or set(item.data) != {"="} or any(name.kind != "letter" for name in item.args[:-1]):
            return answer
        names = [name.data for name in item.args[:-1]]
        if set(names) & groups[-1].keys():
            groups.append({})
        groups[-1].update(dict.fromkeys(names, item.args[-1]))
    if len(groups) < 2 or len(groups[0]) < 2 or any(group.keys() != groups[0].keys() for group in groups):
        return answer
    return Answer(
        tuple(Node("tuple", tuple(group[name] for name in sorted(group)), "()") for group in groups), frozenset(("or",))
    )


def by_order(gold: Answer, answer: Answer) -> Verdict:
    """A list against a tuple: in its order."""
    for one, other in ((gold, answer), (answer, gold)):
        node = only(other)
        if len(one.items) > 1 and node is not None and node.kind == "tuple" and one.separators <= {",", ";", "parts"}:
            if node.data != "()" or len(node.args) != len(one.items):
                return False
            return every(same_item(a, b) for a, b in zip(one.items, node.args, strict=True))
    return None


def by_count(gold: Answer, answer: Answer) -> Verdict:
    """One value is not several."""
    if only(gold) is not None and only(answer) is not None:
        return None
    ours, theirs = solutions(gold), solutions(answer)
    if ours is not None and theirs is not None and len(ours[0]) != len(theirs[0]):
        return False
    return None


RULES: tuple[Callable[[Answer, Answer], Verdict], ...] = (
    by_meaning,
    by_parts,
    by_families,
    by_names,
    by_labels,
    by_real_sets,
    by_items,
    by_order,
    by_solutions,
    by_count,
)


def only(answer: Answer) -> Node | None:
    return answer.items[0] if len(answer.items) == 1 else None
