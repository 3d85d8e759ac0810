"""Whether a reply declines to answer."""

import re

BEGINNING = 400  # characters of the answer: a refusal comes first
REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am)|we(?:['’]re| are)) (?:sorry|afraid|unable|not able)\b[^.!?\n]{0,60}?"
    r"\b(?:can(?:no|['’])t|cannot|can not|unable|not able|not|to) (?:be able to )?(?:help|assist|provide|comply|fulfil"
    r"|do that|answer|discuss|share|engage|create|generate|support)"
    r"|\bi (?:can(?:no|['’])t|cannot|won['’]t|will not|must decline to|have to decline to|am unable to|am not able to) "
    r"(?:help (?:you )?with|assist|provide (?:that|this|any|information|instructions|guidance)|comply|fulfil"
    r"|discuss (?:this|that)|answer (?:this|that) (?:question|request)|engage (?:in|with)|participate"
    r"|support (?:this|that)|generate (?:this|that|content))"
    r"|\bas an ai(?: language)?(?: model| assistant)?,? i (?:can(?:no|['’])t|cannot|do not|don['’]t|am not|am unable)"
    r"|\bi (?:must|have to) (?:respectfully )?(?:decline|refuse)\b"
    r"|(?:抱歉|对不起|很遗憾)[，,]?[^。\n]{0,12}(?:无法|不能|不便)(?:提供|回答|协助|帮助|讨论|满足)|我(?:无法|不能)(?:提供|回答|协助|讨论)",
    re.IGNORECASE,
)
# one of them is in every match; looked for first, since the search for so many patterns is slow
WORDS = ("sorry", "afraid", "unable", "not able", "can't", "can’t", "cannot", "won't", "won’t", "will not", "decline",
         "refuse", "as an ai", "抱歉", "对不起", "很遗憾", "我无法", "我不能")  # fmt: skip


def is_refusal(answer: str) -> bool:
    """Whether the beginning of the answer part says that it will not help. "I cannot find an integer" is none."""
    beginning = answer[:BEGINNING].lower().replace("can not", "cannot")
    return any(word in beginning for word in WORDS) and REFUSAL.search(beginning) is not None
