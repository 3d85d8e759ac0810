"""The YAML at the head of a README.md, as the Hub reads it."""

from collections.abc import Mapping
from typing import Any

import yaml

BREAKS = "\x85\u2028\u2029"  # line ends of YAML 1.1; PyYAML writes them unescaped, and reads a space or a fold


def front_matter(data: Mapping[str, Any]) -> str:
    """The lines between the two `---`. Not folded: a line of a folded text could be the `---` that ends them."""

    def dumped(allow_unicode: bool) -> str:
        return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=allow_unicode, width=1 << 30).rstrip("\n")

    found = dumped(allow_unicode=True)
    return dumped(allow_unicode=False) if any(each in found for each in BREAKS) else found
