"""Tokens and templates: what a student would be taught, and whether it is asked in evaluation as it was in training."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from r1distill.doctor.findings import Finding, Group, attempt, error, ok, warning
from r1distill.doctor.reading import Model
from r1distill.errors import UserError
from r1distill.prompting import THINK_END, THINK_START, encode_prompt, render
from r1distill.train.render import check_example, prepare_tokenizer, render_example, turn_end
from r1distill.train_sections import Train, chat_template_text

QUESTION = "What is 1 + 1?"
REPLY = f"{THINK_START}\n1 + 1 = 2\n{THINK_END}\n\n\\boxed{{2}}"
TOKENS: Group = "models and tokens"


def check_student_tokens(student: Model, settings: Train) -> list[Finding]:
    """Prepare the tokenizer as training does, in place, and say what it teaches to end with, and pads with."""
    check = f"{student.name}: end and padding token"

    def prepare() -> None:
        prepare_tokenizer(student.tokenizer, chat_template_text(settings), settings.eos_token, settings.pad_token)

    _, findings = attempt(TOKENS, check, prepare)
    if findings:
        return findings + check_rows(student)
    tokenizer = student.tokenizer
    ends = list(dict.fromkeys([tokenizer.eos_token_id, *student.ends]))
    return [
        ok(TOKENS, check, f"{named(tokenizer, tokenizer.eos_token_id)}, {named(tokenizer, tokenizer.pad_token_id)}"),
        ok(TOKENS, f"{student.name}: generation stops at", " or ".join(named(tokenizer, end) for end in ends)),
        *check_rows(student),
    ]


def check_rows(model: Model) -> list[Finding]:
    """There must be a row of the embeddings for every token; some more are usual."""
    check = f"{model.name}: rows of the embeddings"
    rows, tokens = model.config.get_text_config().vocab_size, max(model.tokenizer.get_vocab().values()) + 1
    if rows < tokens:
        return [error(TOKENS, check, rows, f"the tokenizer has {tokens} tokens", "take the tokenizer of this model")]
    return [ok(TOKENS, check, f"{rows:,} for {tokens:,} tokens")]


def check_ends(model: Model, role: str) -> list[Finding]:
    """A model that is sampled as it is must stop where its template ends a turn (Qwen's base models do not)."""
    check = f"{role} {model.name}: stops at the end of a turn"
    end = turn_end(model.tokenizer)
    if end is None or end in model.ends:
        return [ok(TOKENS, check, "yes" if end is None else named(model.tokenizer, end))]
    stops = " and ".join(named(model.tokenizer, other) for other in model.ends) or "nothing"
    remedy = f"add {end} to eos_token_id in its generation_config.json"
    return [warning(TOKENS, check, f"it stops at {stops}", f"a turn ends with {named(model.tokenizer, end)}", remedy)]


def named(tokenizer: Any, token: int) -> str:
    return f"{tokenizer.convert_ids_to_tokens(token)} ({token})"


def check_vocabularies(
    student: Model, teacher: Mapping[str, int], teacher_name: str, section: str = "train.kl"
) -> list[Finding]:
    """For a divergence every id has to be the same token on both sides; sizes say nothing (R1-Distill-Qwen: 151644)."""
    check = f"[{section}]: vocabulary of {student.name} and {teacher_name}"
    ours = student.tokenizer.get_vocab()
    if ours == teacher:
        return [ok(TOKENS, check, f"the same {len(ours):,} tokens")]
    by_id = {token_id: token for token, token_id in ours.items()}
    other = {token_id: token for token, token_id in teacher.items()}
    differing = [token for token in sorted(by_id.keys() | other.keys()) if by_id.get(token) != other.get(token)]
    examples = ", ".join(f"{token} is {by_id.get(token)!r} and {other.get(token)!r}" for token in islice(differing, 3))
    remedy = f"take [{section}] out, or a teacher and a student of one family"
    if section == "train.kl":
        remedy += '; train.kl.online with train.kl.cross_tokenizer = "aligned" compares others'
    return [error(TOKENS, check, f"{len(differing):,} ids differ: {examples}", "the same token for every id", remedy)]


def check_template(student: Model, prefill: str) -> list[Finding]:
    """What the template of a prepared tokenizer makes of a turn, and what an example rendered with it teaches."""
    tokenizer, name = student.tokenizer, student.name
    rendered, findings = attempt("template", f"{name}: chat template", lambda: render(tokenizer, QUESTION))
    if rendered is None:
        return findings
    return [
        *check_generation_prompt(tokenizer, name),
        *check_reasoning_kept(tokenizer, name),
        *check_taught(tokenizer, name, REPLY if REPLY.startswith(prefill) else prefill + REPLY, prefill),
        *check_beginnings(tokenizer, name, rendered),
    ]


def check_generation_prompt(tokenizer: Any, name: str) -> list[Finding]:
    """It may open the thinking (which r1distill counts to the reply), but not close it."""
    check = f"{name}: start of a reply in the template"
    asked = [{"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    start = text.rpartition(QUESTION)[2]
    if THINK_END in start:
        limit = f"{THINK_END} there switches the thinking off, and {THINK_START} would be forced behind it"
        return [error("template", check, repr(start[-40:]), limit, "set train.chat_template to one that thinks")]
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "2"}], tokenize=False)
    opened = start.rstrip().endswith(THINK_START)
    if not whole.startswith(text) and not opened:
        remedy = "nothing here: prompt and reply are tokenised apart; do not train elsewhere on whole conversations"
        return [
            warning(
                "template", check, "another in a finished turn", "the prompt is a prefix of the conversation", remedy
            )
        ]
    note = f" opens {THINK_START}, which is taught and forced once, as part of the reply" if opened else ""
    return [ok("template", check, f"{start[-40:]!r}{note}")]


def check_reasoning_kept(tokenizer: Any, name: str) -> list[Finding]:
    check = f"{name}: reasoning in a finished turn"
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": REPLY}]
    if "1 + 1 = 2" in tokenizer.apply_chat_template(messages, tokenize=False):
        return [ok("template", check, "kept")]
    remedy = "nothing here: the reply is tokenised by itself; do not train elsewhere on the column `messages`"
    return [
        warning("template", check, "deleted by the template", "training on it would teach the answer alone", remedy)
    ]


def check_taught(tokenizer: Any, name: str, reply: str, prefill: str) -> list[Finding]:
    check = f"{name}: tags, answer and end are taught once"

    def taught() -> str:
        example = render_example(tokenizer, QUESTION, reply, prefill)
        check_example(tokenizer, example, reply)
        return f"yes, the last is {tokenizer.eos_token}"

    value, findings = attempt("template", check, taught)
    return findings or [ok("template", check, value)]


def check_beginnings(tokenizer: Any, name: str, rendered: str) -> list[Finding]:
    """The template writes the beginning of text, and a tokenizer that adds one too must not be let."""
    check = f"{name}: beginnings of text"
    beginning = tokenizer.bos_token
    written = rendered.count(beginning) if beginning and rendered.startswith(beginning) else 0
    if written > 1 and rendered.startswith(2 * beginning):
        return [error("template", check, f"{written} {beginning}", "at most one", "take one out of the chat template")]
    adds = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id if beginning else False
    note = "; the tokenizer would add one more, and is told not to" if written and adds else ""
    return [ok("template", check, f"{min(written, 1)}{note}")]


def check_parity(student: Model, prefill: str, eval_prefill: str, prompts: Mapping[str, str]) -> list[Finding]:
    """Training, and vLLM in evaluation, must begin with the same ids; `prompts` are the texts by who uses them."""
    findings = []
    check = "evaluation asks as training does"
    if eval_prefill != prefill:
        remedy = f"set eval.prefill = {prefill!r}"
        findings.append(warning("template", check, f"it forces {eval_prefill!r}", f"{prefill!r} is taught", remedy))
    own = prompts["generate.prompt"]
    others = sorted(name for name, text in prompts.items() if text != own)
    if others:
        remedy = "where the task is of the kind that was taught, give both the same prompt"
        findings.append(warning("template", check, f"{', '.join(others)}: another prompt", "generate.prompt", remedy))
    try:
        sent = encode_prompt(student.tokenizer, render(student.tokenizer, QUESTION), prefill)
        trained = render_example(student.tokenizer, QUESTION, prefill + REPLY.removeprefix(prefill), prefill).input_ids
    except UserError:  # said by the checks of the template
        return findings
    text = student.tokenizer.decode(sent)
    if trained[: len(sent)] != sent or text.count(THINK_START) != prefill.count(THINK_START):
        limit = f"the ids that are taught, and {THINK_START} once"
        findings.append(error("template", check, repr(text[-60:]), limit, "set train.chat_template to another"))
    return findings or [ok("template", check, f"the same {len(sent)} ids, ending {text[-24:]!r}")]
