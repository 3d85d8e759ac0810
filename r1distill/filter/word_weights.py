"""How much a word says: bits, fewer for the words that many problems have; and words that turn a question into another.

The bits are -log2 of the share of problems with the word, rounded, the mean over four kinds of problems: word problems,
competition mathematics, functions to write and programs that read and print (GSM8K's training set, MATH-500, MBPP with
HumanEval, Codeforces). Words in under a hundredth of them have all of RARE_BITS. The table is fixed rather than counted from
the benchmarks at hand, so that what is found of one benchmark does not depend on which others are there.
"""

from collections.abc import Collection

from r1distill.filter.normalise import is_number

RARE_BITS = 7
SIGN_BITS = 1  # an operator, or one letter
LETTER_BITS = 3  # a character of a script without spaces, which is about half a word
NUMBER_BITS = 2  # numbers are compared by themselves, see contamination.py

COMMON_WORDS = {
    1: ("the of to and is in for that if number each"),
    2: (
        "are all first how it integers integer input time line given le output contains be format limit ms memory mb tags "
        "find sum can not an test case as with does cases you has from function many on there at single write will exceed "
        "by"
    ),
    3: (
        "second guaranteed or over have what such only this any multiple then follows he description length greedy "
        "following math value example positive which than th where array no them possible lines string she after answer "
        "maximum elements his"
    ),
    4: (
        "make numbers so more total def your let same implementation minimum between force data times brute list her "
        "otherwise dp note binary they much choose but both structures equal also other consists problem order operation "
        "do return next every into when print values their need strings its determine exactly algorithms distinct wants "
        "some did set constructive left should search consisting operations was non python element third help initially "
        "size different calculate these must contain twice ne form perform up boxed please reason step solution"
    ),
    5: (
        "day get take new least per sequence task game numbered takes respectively yes either smallest version may words "
        "index whether characters most out we less sortings right pair without while similar versions him count cost last "
        "even using point before half exists empty since graphs points trees containing character end row pairs remove "
        "money check recognized dfs remaining theory please several decided modulo solved constraints hacks possibly "
        "would had negative needs now another were vertices cannot edges way difference conditions tree queries play "
        "starting initial long move amount once however hours buy draw combinatorics called large denotes across hard "
        "pointers position largest graph ge edge cell returns greater area vertex who odd rows express square defined "
        "real easy current through"
    ),
    6: (
        "adjacent divide days define during compute start shown formally bitmasks considered optimally solve path change "
        "required add gives letters follow int playing always common arrays week prime been type minutes side lower "
        "connected examples use costs very obtained columns spend sorted result triangle tuple games query conquer digits "
        "true people valid exist base doesn additional impossible want written hour red score max quotes upper suppose "
        "turns bought letter lowercase above permutation distance know could year column made needed indices player turn "
        "performing increase grid root cells win ab types simple satisfy label product used false found constraint gave "
        "sort representing makes described students color players corresponding wins until denoting resulting average "
        "select inclusive give able original appears chosen going arbitrary min fraction pay equation starts pick sets "
        "process coordinates holds remainder consider probability circle separated gets rest month replace final among "
        "divided unique import represented ways down divisible because solutions bitwise condition ones greatest answers "
        "years asked sold chooses school achieve angle digit response too like space ends round place range already "
        "denote beginning cycle store about lengths means back friends go friend str goes together off class followed "
        "represents descriptions good miles house consecutive abc coins old strictly dollars having satisfies blue whose "
        "below lists top buys still matrix becomes"
    ),
}
# In a short question one of these in place of another of its line asks something else; words for the same stand together.
OPPOSITES = """
    minimum,minimal,min,smallest,least,lowest,fewest,shortest/maximum,maximal,max,largest,greatest,most,highest,biggest,longest
    even,evens/odd,odds
    positive/negative
    first/last/second/third/fourth/fifth/sixth
    left,leftmost/right,rightmost
    upper,uppercase/lower,lowercase
    sum,summation,add,total/product,multiply/difference,subtract/quotient,divide,division/average,mean/median/mode
    increasing,ascending/decreasing,descending
    union/intersection
    area/perimeter,circumference/volume/diagonal/radius/diameter
    sin/cos/tan/cot/sec/csc
    triangle/square/rectangle/circle/pentagon/hexagon/octagon/sphere/cube/cone/cylinder
    row,rows/column,columns
    prefix/suffix
    before/after
    more,above/less,fewer,below
    hours,hour/minutes,minute/seconds/days,day/weeks,week/months,month/years,year
    tuple,tuples/list,lists/dictionary,dictionaries/string,strings/array,arrays/matrix
"""
# {word: (line, which of its meanings)}
MEANINGS = {
    word: (line, meaning)
    for line, words in enumerate(OPPOSITES.split())
    for meaning, same in enumerate(words.split("/"))
    for word in same.split(",")
}
BITS = {word: bits for bits, words in COMMON_WORDS.items() for word in words.split()}


def bits_of(word: str) -> int:
    """Of a word in the normal form (r1distill/filter/normalise.py)."""
    if is_number(word):
        return NUMBER_BITS
    if len(word) == 1:
        return SIGN_BITS if word.isascii() or not word.isalpha() else LETTER_BITS
    return BITS.get(word, RARE_BITS)


def ask_otherwise(first: Collection[str], second: Collection[str]) -> bool:
    """Whether each of two texts has a word that the other one has an opposite of instead: "the largest", "the smallest"."""
    ours, theirs = ({MEANINGS[word] for word in words if word in MEANINGS} for words in (first, second))
    return bool({line for line, _ in ours - theirs} & {line for line, _ in theirs - ours})
