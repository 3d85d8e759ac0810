"""The one way to turn a problem into what a model reads, and a reply into its thinking and its answer."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from r1distill.errors import UserError
from r1distill.records import Problem
from r1distill.resources import read_file

THINK_START, THINK_END = "<think>", "</think>"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICE_LINE = "{letter}. {choice}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file and the start of the reply that is forced on the model.

    `starter_text` is asked instead of `text` where a problem comes with code to complete; without it that code is put
    below the problem. `choice_line` is how an option is written. `system` is the system message, "" for none; "raw" gives the
    model the text as it is, without a chat.
    """

    name: str
    text: str
    prefill: str
    starter_text: str = ""
    choice_line: str = CHOICE_LINE
    system: str = ""
    template: Literal["chat", "raw"] = "chat"

    @property
    def sha256(self) -> str:
        """Of all that makes the user message; of the text of the file alone where there is nothing else."""
        if not self.starter_text and self.choice_line == CHOICE_LINE:
            return hashlib.sha256(self.text.encode()).hexdigest()
        return hashlib.sha256(json.dumps([self.text, self.starter_text, self.choice_line]).encode()).hexdigest()

    def user_message(self, problem: Problem) -> str:
        """The prompt with the problem put in, in one pass: what a question says in braces stays as it is, as does `\\boxed{}`.

        Raises UserError where choices have no place in the prompt.
        """
        if problem.kind == "choice" and "{choices}" not in self.text:
            raise UserError(
                f"prompt {self.name}: has no {{choices}} in it, which choice problems need; use prompts/choice.txt"
            )
        choices = [
            self.choice_line.replace("{letter}", letter).replace("{choice}", choice)
            for letter, choice in zip(LETTERS, problem.choices or [], strict=False)
        ]
        question, starter = problem.problem, problem.meta.get("starter_code") or ""
        if starter and not self.starter_text:
            question = f"{question}\n\n```python\n{starter.strip()}\n```"
        values = {"{problem}": question, "{choices}": "\n".join(choices), "{starter_code}": starter}
        text = self.starter_text if starter and self.starter_text else self.text
        return re.sub("|".join(map(re.escape, values)), lambda place: values[place[0]], text)


def load_prompt(name: str, prefill: str) -> Prompt:
    return Prompt(name, prompt_text(name), prefill)


def prompt_text(name: str) -> str:
    """The text of a prompt file, without the line end of its last line. Raises UserError where it asks nothing."""
    text = read_file(name, "prompt").removesuffix("\n")
    if "{problem}" not in text:
        raise UserError(f"prompt {name}: has no {{problem}} in it, so every question would be the same")
    return text


def render(tokenizer: Any, user_message: str, system: str = "") -> str:
    """The chat up to where the assistant's reply starts, without any forced start of that reply.

    R1's newer templates end in `<think>\\n` themselves; that belongs to the reply (it has to be taught, and put back in
    front of what was sampled), so it is cut off here and added again by `encode_prompt`, the same for every model.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer has no chat template; "
            "for a base model set train.chat_template (prompts/chatml.jinja, prompts/llama3.jinja)"
        )
    text = tokenizer.apply_chat_template(
        [*of_system(system), {"role": "user", "content": user_message}], tokenize=False, add_generation_prompt=True
    )
    head, mark, tail = text.rpartition(THINK_START)
    return head if mark and not tail.strip() else text


def of_system(system: str) -> list[dict[str, str]]:
    """The message that it is, where there is one."""
    return [{"role": "system", "content": system}] if system else []


def template_sha256(tokenizer: Any) -> str | None:
    """Of the text of its chat template; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def encode_prompt(tokenizer: Any, rendered: str, prefill: str) -> list[int]:
    """Token ids of prompt and forced start, encoded apart so that training sees the same boundary.

    The template wrote the beginning-of-text token if there is one, so none is added (open-r1#462: two cost points).
    """
    return encode(tokenizer, rendered) + encode(tokenizer, prefill)


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def split_thinking(text: str) -> tuple[str | None, str]:
    """(thinking, answer) of a reply: what stands between the tags, and what follows the last `</think>`.

    A reply cut off while thinking has no answer; one without tags has no thinking.
    """
    before, mark, after = text.rpartition(THINK_END)
    if mark:
        return before.partition(THINK_START)[2].strip() if THINK_START in before else before.strip(), after.strip()
    _, mark, thinking = text.partition(THINK_START)
    return (thinking.strip(), "") if mark else (None, text.strip())
