"""Licences as the Hub names them: those of the questions and of the teacher, carried through to the dataset.

The names are those of https://huggingface.co/docs/hub/repositories-licenses.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

UNKNOWN, OTHER = "unknown", "other"
HUB_LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl "
    "lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 "
    "openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-"
    "license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other".split()
)
NAMES = {
    "apache": "apache-2.0", "apache-2": "apache-2.0", "apache2": "apache-2.0", "apache2.0": "apache-2.0",
    "cc0": "cc0-1.0", "public-domain": "cc0-1.0", "gplv3": "gpl-3.0", "lgplv3": "lgpl-3.0", "agplv3": "agpl-3.0",
    "bsd-3": "bsd-3-clause", "bsd-2": "bsd-2-clause", "odc-by-1.0": "odc-by", "none": "unknown", "n/a": "unknown",
}  # fmt: skip
# Of the weights, as their own cards say: the first that a teacher's name starts with. What a model says is covered by it
# only as far as it says so.
TEACHERS = {
    "quickstart:": "apache-2.0",  # SmolLM2-135M-Instruct
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "llama3.1",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": "llama3.3",
    "deepseek-ai/DeepSeek-R1": "mit",
    "deepseek-ai/DeepSeek-V3.1": "mit",
    "deepseek-ai/DeepSeek-V3.2": "mit",
    "Qwen/QwQ-32B": "apache-2.0",
    "Qwen/Qwen3-": "apache-2.0",
    "openai/gpt-oss-": "apache-2.0",
}
CONDITIONS = (  # what a licence asks for, by its Hub name, the strictest first
    ("no derivatives", re.compile(r"-nd-")),
    ("no commercial use", re.compile(r"-nc-|noncommercial|research")),
    ("the same licence for what is made of it", re.compile(r"-sa-|^a?gpl|^odbl|^gfdl|sharing")),
    ("its makers' own terms of use", re.compile(r"^llama\d|^gemma|^grok|rail")),
)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a card: `license` is a name of the Hub or several, `license_name` what "other" stands for."""

    license: str | list[str]
    license_name: str | None


def hub_license(stated: str) -> str:
    """The Hub's name of a licence as a source states it; "unknown" for none, "other" for one that the Hub does not know."""
    name = re.sub(r"[\s_]+", "-", stated.strip().lower())
    name = re.sub(r"^the-|-licen[sc]e.*$|,.*$", "", name).replace("-version-", "-").replace("-v", "-")
    name = re.sub(r"^creative-commons-", "cc-", name)
    name = NAMES.get(name, name)
    if not name:
        return UNKNOWN
    return name if name in HUB_LICENSES else OTHER


def license_fields(stated: Iterable[str]) -> Fields:
    """What the card says of all these licences together: one name where all are the same, else all of them."""
    found = {each: hub_license(each) for each in stated}
    names = sorted(set(found.values()) or {UNKNOWN})
    others = sorted(each.strip() for each, name in found.items() if name == OTHER)
    return Fields(names[0] if len(names) == 1 else names, ", ".join(others) or None)


def conditions_of(stated: Iterable[str]) -> list[str]:
    """What those of these licences that the Hub knows ask for, the strictest first."""
    names = {hub_license(each) for each in stated}
    return [words for words, pattern in CONDITIONS if any(pattern.search(name) for name in names)]


def teacher_license(model: str) -> str:
    """The licence of a teacher: what the card in its folder says, else what is known of its name; "" for neither."""
    said = front_matter(Path(model).expanduser() / "README.md").get("license")
    if said:
        return ", ".join(map(str, said)) if isinstance(said, list) else str(said)
    return next((found for name, found in TEACHERS.items() if model.startswith(name)), "")


def front_matter(path: Path) -> dict[str, Any]:
    """The metadata of a card; {} where there is no such file, or none in it that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # no such file, no text, no name of a file
        return {}
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}
