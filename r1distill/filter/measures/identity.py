"""Whether a model says in a trace who it is: a student taught so would claim to be its teacher."""

import re

# Names that nothing else bears in a solution, then those that are people, letters or constellations too.
NAMES = (
    r"DeepSeek(?:[- ]?(?:R1|V\d(?:\.\d)?|AI))?|深度求索|Qwen(?:[\d.]+)?|QwQ|通义千问|Tongyi(?: Qianwen)?|ChatGPT"
    r"|GPT-?[345]\w*|OpenAI|Anthropic|ChatGLM|GLM-\d[\w.]*|Zhipu(?: AI)?|Mistral(?: AI)?|Mixtral|Moonshot(?: AI)?|MiniMax"
    r"|Baichuan|文心一言|豆包|Doubao|Magistral|SmolLM\d?|Copilot|InternLM|Hunyuan|Nemotron"
)
COMMON_NAMES = r"Claude|Gemini|Bard|Llama(?:[ -]?\d[\d.]*)?|Gemma|Grok|Kimi|Phi(?:-\d)?|Yi|Ernie|Command(?: R\+?)?"
MAKERS = (
    r"OpenAI|Anthropic|DeepSeek(?:[- ]AI)?|深度求索|Alibaba(?: Cloud)?|阿里(?:巴巴|云)?|Google(?: DeepMind)?|Meta(?: AI)?"
    r"|Mistral(?: AI)?|Microsoft|xAI|Moonshot(?: AI)?|Zhipu(?: AI)?|Baidu|百度|ByteDance|字节跳动|Tencent|腾讯|Nvidia|NVIDIA"
    r"|Hugging Face"
)
MACHINE = r"(?:AI|artificial intelligence|large language model|language model|LLM|chat ?bot|virtual assistant)"
I_AM = r"(?:\bI(?:['’]m| am)|\b[Mm]y name is|我是|我叫)\s*(?:an?\s+|the\s+|called\s+|named\s+|actually\s+|just\s+)?"
SELF = (
    re.compile(rf"{I_AM}(?P<name>{NAMES})"),
    re.compile(rf"\b(?:As|as|being)\s+(?P<name>{NAMES}),"),
    re.compile(
        rf"{I_AM}(?P<name>{COMMON_NAMES}),? (?:an? (?:\w+ )?{MACHINE}|(?:made|trained|developed|created|built) by)"
    ),
    re.compile(
        rf"(?:\bI (?:was|am|have been)|\bI['’]m|{I_AM}[^.\n]{{0,60}}?)\s*"
        rf"(?:made|trained|developed|created|built|designed) by (?P<name>{MAKERS})\b"
    ),
    re.compile(rf"由(?P<name>{MAKERS})[^。\n]{{0,12}}(?:开发|训练|研发|创造|创建)"),
    re.compile(rf"{I_AM}(?P<name>[A-Z][\w.-]{{1,20}}), an? (?:\w+ ){{0,2}}{MACHINE}\b"),
    re.compile(rf"(?:\bI(?:['’]m| am)(?: just| only| actually)?|\b[Aa]s) an? (?:\w+ ){{0,2}}?(?P<name>{MACHINE})\b"),
)
BEFORE, BEHIND = 120, 80  # characters around such a word
# looked for first, since a search for one of many patterns takes a hundred times as long as one for a word
WORDS = [
    *(
        "AI",
        "rtificial",
        "anguage model",
        "LLM",
        "hatbot",
        "hat bot",
        "ssistant",
        "eep",
        "深度",
        "Qw",
        "通义",
        "Tongyi",
        "GPT",
    ),
    *(
        "Anthropic",
        "GLM",
        "Zhipu",
        "Mist",
        "Mixt",
        "Moonshot",
        "MiniMax",
        "Baichuan",
        "文心",
        "豆包",
        "Doubao",
        "Magistral",
    ),
    *(
        "SmolLM",
        "Copilot",
        "InternLM",
        "Hunyuan",
        "Nemotron",
        "Google",
        "Meta",
        "Microsoft",
        "Alibaba",
        "阿里",
        "Baidu",
    ),
    *("百度", "ByteDance", "字节", "Tencent", "腾讯", "vidia", "NVIDIA", "Hugging"),
]


def self_identification(text: str, problem: str = "") -> str:
    """The name that the model gives itself, as it writes it: a model's, a maker's, else "AI" and the like; "" for none.

    What the problem says too ("I am Claude, an AI") is not the model's own word.
    """
    places = surroundings(text)
    for pattern in SELF:
        for place in places:
            for match in pattern.finditer(place):
                if match[0] not in problem:
                    return match["name"]
    return ""


def surroundings(text: str) -> list[str]:
    """What stands around each of WORDS, those that are near each other together: the name comes soon behind "I am"."""
    places = sorted(match.start() for word in WORDS if word in text for match in re.finditer(re.escape(word), text))
    spans: list[tuple[int, int]] = []
    for place in places:
        start, end = max(place - BEFORE, 0), place + BEHIND
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [text[start:end] for start, end in spans]
