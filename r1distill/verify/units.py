"""Units of measurement: a value in them as a value in the base unit of what is measured."""

import re
from fractions import Fraction

# what is measured, and how many base units one of it is
BASE: dict[str, tuple[str, Fraction]] = {}


def define(dimension: str, table: str) -> None:
    """`table`: "name,name=factor" by spaces."""
    for entry in table.split():
        names, _, factor = entry.partition("=")
        for name in names.split(","):
            BASE[name] = (dimension, Fraction(factor))


define(
    "length",
    "m,meter,metre=1 cm,centimeter,centimetre=1/100 mm,millimeter,millimetre=1/1000 km,kilometer,kilometre=1000 "
    "in,inch,inche=254/10000 ft,foot,feet=3048/10000 yd,yard=9144/10000 mi,mile=1609344/1000 dm,decimeter=1/10 nm=1/1000000000",
)
define(
    "mass",
    "kg,kilogram=1 g,gram=1/1000 mg,milligram=1/1000000 t,ton,tonne=1000 lb,pound=45359237/100000000 "
    "oz,ounce=45359237/1600000000",
)
define(
    "time",
    "s,sec,second=1 min,minute=60 h,hr,hour=3600 day=86400 week=604800 ms,millisecond=1/1000 year,yr=31557600 month=2629800",
)
define("volume", "l,L,liter,litre=1/1000 ml,mL,milliliter,millilitre=1/1000000 gallon,gal=3785411784/1000000000000")
define("money", "dollar,usd,USD=1 cent,¢=1/100")
define("euro", "euro,eur,EUR,€=1")
define("pounds sterling", "£,gbp,GBP=1")
define("yuan", "yuan,rmb,RMB,¥=1")
define("rupee", "rupee,₹,Rs=1")
define("energy", "J,joule=1 kJ,kilojoule=1000 eV=1")
define("power", "W,watt=1 kW,kilowatt=1000")
define("force", "N,newton=1 kN=1000")
define("pressure", "Pa,pascal=1 kPa=1000 atm=101325")
define("frequency", "Hz,hertz=1 kHz=1000 MHz=1000000")
define("voltage", "V,volt=1")
define("current", "A,ampere,amp=1")
define("angle", "deg,degree,°=1")
define("radians", "rad,radian=1")
define("temperature", "K,kelvin=1")

COMPOUND = {"mph": (("length", 1, "time", -1), Fraction(1609344, 3600000)), "kmh": (("length", 1, "time", -1), Fraction(5, 18)),
            "kph": (("length", 1, "time", -1), Fraction(5, 18)), "rpm": (("turn", 1, "time", -1), Fraction(1, 60))}  # fmt: skip
IGNORED = frozenset(
    ["unit", "units", "square", "sq", "cubic", "cu", "squared", "cubed", "per", "of", "a", "an", "the", "each"]
)
POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}

Measure = tuple[tuple[tuple[str, int], ...], Fraction]


def measure(text: str) -> Measure | None:
    """(what is measured, as powers; how many base units one of it is) of `cm^2`, `km/h`, `square meters`.

    None for a unit that is not known here (apples).
    """
    compact = text.strip().strip(".")
    if compact in COMPOUND:
        parts, factor = COMPOUND[compact]
        return tuple(sorted(((str(parts[0]), int(parts[1])), (str(parts[2]), int(parts[3]))))), factor
    words = re.findall(r"[^\W\d_]+|[¢€£¥₹°]|\^?-?\d|/", compact)
    powers: dict[str, int] = {}
    factor, sign, pending, found = Fraction(1), 1, 0, False
    last: tuple[str, Fraction] | None = None
    for word in words:
        if word in ("/", "per"):
            sign = -1
        elif word.lower() in POWERS and word.lower() in ("squared", "cubed"):
            if last is None:
                return None
            power = POWERS[word.lower()]
            powers[last[0]] = powers.get(last[0], 0) + sign * (power - 1)
            factor *= last[1] ** (sign * (power - 1))
        elif word.lower() in POWERS:
            pending = POWERS[word.lower()]
        elif word.lstrip("^-").isdigit():
            if last is None:
                return None
            power = int(word.lstrip("^"))
            powers[last[0]] = powers.get(last[0], 0) + sign * (power - 1)
            factor *= last[1] ** (sign * (power - 1))
        elif word.lower() in IGNORED:
            found = found or word.lower() in ("unit", "units")
        else:
            last = (
                BASE.get(word)
                or BASE.get(word.lower())
                or BASE.get(word.lower().rstrip("s"))
                or BASE.get(word.rstrip("s"))
            )
            if last is None:
                return None
            power = pending or 1
            powers[last[0]] = powers.get(last[0], 0) + sign * power
            factor *= last[1] ** (sign * power)
            pending, found = 0, True
    if not found:
        return None
    dimensions = {name: power for name, power in powers.items() if power}
    if dimensions == {"volume": 1}:
        dimensions = {"length": 3}
    return tuple(sorted(dimensions.items())), factor
