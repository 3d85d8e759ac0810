"""Calls between two processes that do not trust each other: a candidate and the tests that check it.

The tests run in one sandbox, the candidate in another; what passes between them are plain values, written as JSON and
built anew on the other side. So a candidate cannot reach the tests by frames, patched modules or memory, and an object
that claims to be equal to everything never gets to where it is compared: of an instance of an unknown class only a
reference passes, on which nothing is defined that a candidate could answer a comparison with. Standard library only.
"""

import base64
import builtins
import datetime
import itertools
import json
import os
import struct
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from math import isfinite

MAX_MESSAGE_BYTES = 256 << 20
MAX_BATCH_ITEMS = 50_000  # entries of the results that wait to be passed together
MAX_DEPTH = 200  # of nested containers
SAFE_INTEGER_BITS = 62
SAFE_INTEGER = (
    1 << SAFE_INTEGER_BITS
) - 1  # larger ones travel as hexadecimal: reading decimal digits takes quadratic time

CONTAINERS = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
MAPPINGS = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
UNCHANGED = {str, bool, type(None)}
TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None), object, type)
}
EXCEPTIONS = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
}


class Gone(BaseException):
    """The other process ended, or says what is no message. No `except Exception` of a test may swallow it."""


class RemoteError(Exception):
    """An exception of a class that only the other process has. The message begins with its name."""


class Peer:
    """One end of the conversation. Either side may call the other while it is itself being called.

    `trusting`: whether the other side may do with an exported object whatever it likes (the tests with a candidate's),
    or only call it and iterate over it (a candidate with a function or an iterator of the tests).
    """

    def __init__(self, descriptor, trusting):
        self.descriptor = descriptor
        self.trusting = trusting
        self.exported = {}
        self.lost = False
        self.unread = bytearray()
        self.names = {}  # what may be asked for by name: the globals of the candidate

    # ------------------------------------------------------------ messages

    def send(self, message):
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a value of {len(data):,} bytes is too large to pass")
        data = struct.pack("<I", len(data)) + data
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError:
            raise Gone from None

    def receive(self):
        (size,) = struct.unpack("<I", self.read(4))
        if size > MAX_MESSAGE_BYTES:
            raise Gone
        try:
            return json.loads(self.read(size))
        except (ValueError, RecursionError):
            raise Gone from None

    def read(self, size):
        while len(self.unread) < size:
            try:
                part = os.read(self.descriptor, max(size - len(self.unread), 1 << 16))
            except OSError:
                part = b""
            if not part:
                self.lost = True
                raise Gone
            self.unread += part
        data = bytes(self.unread[:size])
        del self.unread[:size]
        return data

    def ask(self, operation, target, *arguments):
        """Do something with an object of the other side, serving its calls meanwhile."""
        self.send({"do": operation, "on": target, "with": [self.encode(value) for value in arguments]})
        while True:
            message = self.receive()
            if "do" in message:
                self.serve(message)
            elif "error" in message:
                raise exception(*message["error"])
            else:
                self.write_back(arguments, message.get("changed"))
                return self.decode(message["value"])

    def serve(self, message):
        try:
            arguments = [self.decode(value) for value in message["with"]]
            reply = {"value": self.encode(self.perform(message["do"], message["on"], arguments))}
            if message["do"] == "call":  # functions may work in place: the caller's lists have to show it
                after = [self.encode(value) for value in arguments]
                if after != message["with"]:
                    reply["changed"] = after
        except Gone:
            raise
        except Exception as error:
            reply = {
                "error": [type(error).__name__, [base.__name__ for base in type(error).__mro__], message_of(error)]
            }
        self.send(reply)

    def serve_forever(self):
        while True:
            self.serve(self.receive())

    def perform(self, operation, target, arguments):
        if operation == "global" and self.trusting:
            return self.names[arguments[0]]
        value = self.exported[target]
        if operation == "call":
            positional, keywords = arguments
            return value(*positional, **keywords)
        if operation == "next":
            return next(value)
        if operation == "iter":
            return iter(value)
        if operation == "map":
            return outcomes_of(value, arguments)
        if not self.trusting:
            raise TypeError(f"{operation} of an object of the tests")
        if operation == "getattr":
            return getattr(value, *arguments)
        if operation == "setattr":
            return setattr(value, *arguments)
        if operation == "getitem":
            return value[arguments[0]]
        if operation == "setitem":
            value[arguments[0]] = arguments[1]
            return None
        if operation == "len":
            return len(value)
        if operation == "bool":
            return bool(value)
        if operation == "str":
            return str(value)
        raise TypeError(f"no such operation: {operation}")

    def write_back(self, arguments, changed):
        """Show in our own lists, dicts and sets what the other side did to its copies of them."""
        if not isinstance(changed, list):
            return
        for ours, theirs in zip(arguments, changed, strict=True):
            update(ours, self.decode(theirs))

    # ------------------------------------------------------------ values

    def encode(self, value, depth=0):
        """The value as JSON: scalars as they are, anything else as a list that begins with the name of its type."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if value.bit_length() <= SAFE_INTEGER_BITS else ["int", hex(value)]
        if kind is float:
            return value if isfinite(value) else ["float", repr(value)]
        if depth > MAX_DEPTH:
            raise ValueError(f"a value is nested more than {MAX_DEPTH} deep")
        if kind in CONTAINERS:
            items = value if kind is not deque else [value.maxlen, *value]
            return [CONTAINERS[kind], *self.encode_all(items, depth)]
        if kind in MAPPINGS:
            return [MAPPINGS[kind], *self.encode_all(itertools.chain.from_iterable(value.items()), depth)]
        if kind is Remote and value._peer is self:
            return ["yours", value._reference]
        return self.encode_rare(value, kind, depth)

    def encode_all(self, items, depth):
        items = items if isinstance(items, (list, tuple)) else list(items)
        kinds = set(map(type, items))
        if kinds <= UNCHANGED or (kinds == {int} and max(items) <= SAFE_INTEGER and min(items) >= -SAFE_INTEGER):
            return items
        if kinds == {float} and all(map(isfinite, items)):
            return items
        return [self.encode(item, depth + 1) for item in items]

    def encode_rare(self, value, kind, depth):
        if kind is complex:
            return ["complex", self.encode(value.real), self.encode(value.imag)]
        if kind in (bytes, bytearray):
            return [kind.__name__, base64.b64encode(value).decode()]
        if kind in (range, slice):
            return [kind.__name__, *(self.encode(part) for part in (value.start, value.stop, value.step))]
        if kind is Decimal:
            return ["decimal", str(value)]
        if kind is Fraction:
            return ["fraction", self.encode(value.numerator), self.encode(value.denominator)]
        if kind in (datetime.datetime, datetime.date, datetime.time):
            return [kind.__name__, value.isoformat()]
        if kind is datetime.timedelta:
            return ["timedelta", value.days, value.seconds, value.microseconds]
        if kind is type and TYPES.get(value.__name__) is value:
            return ["type", value.__name__]
        if value is Ellipsis:
            return ["ellipsis"]
        array = encode_array(value, kind, self)
        if array is not None:
            return array
        # A subclass passes as the value it has as a number, a string or a container: its methods stay behind.
        for base, plain in PLAIN:
            if isinstance(value, base):
                return self.encode(plain(value), depth)
        if isinstance(value, (type({}.keys()), type({}.values()), type({}.items()))):
            return ["view", *self.encode_all(value, depth)]
        self.exported[id(value)] = value
        return ["mine", id(value), kind.__name__[:100]]

    def decode(self, value):
        """What `encode` made on the other side. Raises of every kind on what is no such thing."""
        return self.decode_list(value) if type(value) is list else value

    def decode_list(self, value):
        name = value[0]
        items = value[1:]
        if list in set(map(type, items)):
            items = [self.decode_list(item) if type(item) is list else item for item in items]
        if name == "list":
            return items
        return DECODERS[name](self, *items) if name not in MADE_OF_ITEMS else MADE_OF_ITEMS[name](items)


def update(ours, theirs):
    """Make `ours` equal to `theirs` in place, as far as both are containers of one kind."""
    if type(ours) is not type(theirs):
        return
    if type(ours) in (list, deque):
        if len(ours) == len(theirs):
            for mine, other in zip(ours, theirs, strict=False):
                update(mine, other)
            theirs = [
                mine if mine == other and type(mine) is type(other) else other
                for mine, other in zip(ours, theirs, strict=False)
            ]
        ours.clear()
        ours.extend(theirs)
    elif type(ours) in (dict, OrderedDict, Counter):
        for key in set(ours) & set(theirs):
            update(ours[key], theirs[key])
        kept = {key: ours[key] if key in ours and ours[key] == theirs[key] else theirs[key] for key in theirs}
        ours.clear()
        dict.update(ours, kept)
    elif type(ours) is set:
        ours.clear()
        ours.update(theirs)
    elif type(ours) is bytearray:
        ours[:] = theirs
    elif type(ours) is tuple:
        for mine, other in zip(ours, theirs, strict=False):
            update(mine, other)


PLAIN = (
    (str, lambda value: str.__str__(value)),
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (list, lambda value: list(list.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)


def from_pairs(kind, items):
    mapping = kind()
    for key, value in zip(items[::2], items[1::2], strict=True):
        dict.__setitem__(mapping, key, value)
    return mapping


MADE_OF_ITEMS = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": lambda items: deque(items[1:], items[0]),
    "dict": lambda items: from_pairs(dict, items),
    "ordered": lambda items: from_pairs(OrderedDict, items),
    "counter": lambda items: from_pairs(Counter, items),
    "view": lambda items: dict.fromkeys(items).keys(),
}
DECODERS = {
    "int": lambda peer, digits: int(digits, 16),
    "float": lambda peer, text: float(text),
    "complex": lambda peer, real, imaginary: complex(real, imaginary),
    "bytes": lambda peer, text: base64.b64decode(text),
    "bytearray": lambda peer, text: bytearray(base64.b64decode(text)),
    "range": lambda peer, *parts: range(*parts),
    "slice": lambda peer, *parts: slice(*parts),
    "decimal": lambda peer, text: Decimal(text),
    "fraction": lambda peer, *parts: Fraction(*parts),
    "datetime": lambda peer, text: datetime.datetime.fromisoformat(text),
    "date": lambda peer, text: datetime.date.fromisoformat(text),
    "time": lambda peer, text: datetime.time.fromisoformat(text),
    "timedelta": lambda peer, *parts: datetime.timedelta(*parts),
    "type": lambda peer, name: TYPES[name],
    "ellipsis": lambda peer: Ellipsis,
    "array": lambda peer, dtype, shape, data: decode_array(dtype, shape, data),
    "yours": lambda peer, reference: peer.exported[reference],
    "mine": lambda peer, reference, name: Remote(peer, reference, str(name)),
}


def encode_array(value, kind, peer):
    """A numpy array as its type, shape and bytes; a numpy number as the Python number it is. None for anything else."""
    if kind.__module__.partition(".")[0] != "numpy":
        return None
    import numpy  # noqa: PLC0415 - only where it is asked for

    if isinstance(value, numpy.generic):
        plain = value.item()
        return None if isinstance(plain, numpy.generic) else peer.encode(plain)
    if kind is not numpy.ndarray or value.dtype.kind not in "biufcSU":
        return None
    data = base64.b64encode(numpy.ascontiguousarray(value).tobytes()).decode()
    return ["array", value.dtype.str, ["tuple", *value.shape], data]


def decode_array(dtype, shape, data):
    import numpy  # noqa: PLC0415 - only where it is asked for

    if numpy.dtype(dtype).kind not in "biufcSU":
        raise ValueError(f"an array of {dtype}")
    return numpy.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape).copy()


def exception(name, bases, message):
    """The exception of the other side: of its own class where that is a builtin one, else of the nearest base."""
    for base in bases:
        if base in EXCEPTIONS:
            kind = EXCEPTIONS[base]
            if base == name or base not in ("Exception", "BaseException"):
                break
    else:
        kind = RemoteError
    if kind is Exception and name != "Exception":
        kind = RemoteError
    text = str(message)[:2000]
    try:
        return kind(text if name in EXCEPTIONS else f"{name}: {text}")
    except TypeError:  # UnicodeDecodeError and its like want five arguments
        return RemoteError(f"{name}: {text}")


def outcomes_of(function, many):
    """The outcomes of the first calls of many: of all, unless their results become large."""
    outcomes, size = [], 0
    for arguments in many:
        outcomes.append(outcome_of(function, arguments))
        result = outcomes[-1][1]
        size += len(result) if type(result) in (list, tuple, str, dict, set, bytes) else 1
        if size > MAX_BATCH_ITEMS:
            break
    return outcomes


def outcome_of(function, arguments):
    """(True, the result) or (False, the exception), of one of many calls."""
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, description(error)


def description(error):
    """What `exception` makes an exception of again: the name of its class, those of the bases, and its message."""
    return [type(error).__name__, [base.__name__ for base in type(error).__mro__], message_of(error)]


def message_of(error):
    try:
        return str(error)[:2000]
    except Exception:
        return ""


class Remote:
    """An object of the other process that is no plain value. Compared by identity: its own opinion does not count."""

    def __init__(self, peer, reference, kind):
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_reference", reference)
        object.__setattr__(self, "_kind", kind)

    def __eq__(self, other):
        return type(other) is Remote and other._reference == self._reference

    def __hash__(self):
        return hash(self._reference)

    def __repr__(self):
        return f"<{self._kind} of the other process>"

    def _map(self, many):
        """The outcomes of the first of many calls, at the price of one: [(True, result) or (False, exception)]."""
        outcomes = self._peer.ask("map", self._reference, *many)
        return [(good, value if good else exception(*value)) for good, value in outcomes]

    def __call__(self, *arguments, **keywords):
        return self._peer.ask("call", self._reference, list(arguments), keywords)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # what copy, numpy and others look for is ours to answer
        return self._peer.ask("getattr", self._reference, name)

    def __setattr__(self, name, value):
        self._peer.ask("setattr", self._reference, name, value)

    def __getitem__(self, key):
        return self._peer.ask("getitem", self._reference, key)

    def __setitem__(self, key, value):
        self._peer.ask("setitem", self._reference, key, value)

    def __len__(self):
        return self._peer.ask("len", self._reference)

    def __bool__(self):
        return self._peer.ask("bool", self._reference) is True

    def __str__(self):
        return str(self._peer.ask("str", self._reference))

    def __iter__(self):
        iterator = self._peer.ask("iter", self._reference)
        return iterator if type(iterator) is Remote else iter(iterator)

    def __next__(self):
        return self._peer.ask("next", self._reference)

    def __contains__(self, value):
        return any(item == value for item in self)
