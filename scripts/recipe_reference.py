"""Write the recipe reference of README.md from the recipe's models: python scripts/recipe_reference.py --write"""

import re
import sys
from pathlib import Path

from r1distill.recipe_reference import reference

README = Path(__file__).resolve().parents[1] / "README.md"
SECTION = re.compile(r"(<!-- recipe reference.*?-->\n).*?(<!-- /recipe reference -->)", re.DOTALL)


def with_reference(text: str) -> str:
    return SECTION.sub(lambda match: match[1] + reference() + match[2], text)


if __name__ == "__main__":
    updated = with_reference(README.read_text(encoding="utf-8"))
    if "--write" in sys.argv:
        README.write_text(updated, encoding="utf-8")
    else:
        print(updated)
