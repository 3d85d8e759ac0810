"""What is taught: every trap of chat templates and tokenizers that cost others a day."""

import pytest
import tiny_model
from transformers import PreTrainedTokenizerFast

from r1distill.errors import UserError
from r1distill.prompting import encode_prompt, render
from r1distill.train.render import IGNORED, Example, check_example, prepare_tokenizer, render_example

REPLY = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"
# deletes the reasoning of every assistant turn, as the template of R1-Distill does
DELETES_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORCES_THINKING = DELETES_REASONING.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_model.make_tokenizer()


def taught(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != IGNORED], skip_special_tokens=False))


@pytest.mark.parametrize("template", [None, DELETES_REASONING, FORCES_THINKING])
def test_the_whole_reply_and_its_end_are_taught_whatever_the_template_does(
    tokenizer: PreTrainedTokenizerFast, template: str | None
) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    example = render_example(tokenizer, "1 + 1?", REPLY, "<think>\n")
    assert taught(tokenizer, example) == REPLY + "<|im_end|>"
    check_example(tokenizer, example, REPLY)


def test_the_prompt_is_not_taught_and_ends_where_the_reply_begins(tokenizer: PreTrainedTokenizerFast) -> None:
    example = render_example(tokenizer, "1 + 1?", REPLY, "<think>\n")
    length = example.labels.index(next(label for label in example.labels if label != IGNORED))
    assert tokenizer.decode(example.input_ids[:length]) == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert example.input_ids[length:] == example.labels[length:]


@pytest.mark.parametrize("template", [None, FORCES_THINKING])
def test_sampling_and_training_see_the_same_ids_up_to_the_forced_start(
    tokenizer: PreTrainedTokenizerFast, template: str | None
) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    prompt = encode_prompt(tokenizer, render(tokenizer, "1 + 1?"), "<think>\n")
    example = render_example(tokenizer, "1 + 1?", REPLY, "<think>\n")
    assert example.input_ids[: len(prompt)] == prompt
    assert str(tokenizer.decode(prompt)).count("<think>") == 1


def test_a_question_that_mentions_the_tag_keeps_it(tokenizer: PreTrainedTokenizerFast) -> None:
    assert "what does <think> mean?" in render(tokenizer, "what does <think> mean?")


def test_padding_is_never_the_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    prepare_tokenizer(tokenizer, None, None, None)
    assert tokenizer.pad_token == "<|endoftext|>"
    with pytest.raises(UserError, match="is the end token too"):
        prepare_tokenizer(tokenizer, None, None, "<|im_end|>")


def test_an_end_token_that_does_not_end_the_turn_is_refused_with_the_right_one(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(UserError, match=r"ends a turn with '<\|im_end\|>'.*set train.eos_token"):
        prepare_tokenizer(tokenizer, None, "<|endoftext|>", "<|im_start|>")


def test_a_token_outside_the_vocabulary_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"train.eos_token = <\|eot_id\|>: not in the vocabulary"):
        prepare_tokenizer(tokenizer, None, "<|eot_id|>", None)


def test_a_tokenizer_without_a_template_is_refused_with_the_remedy(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=r"no chat template; .*train.chat_template"):
        render(tokenizer, "1 + 1?")


def test_two_beginnings_of_text_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.bos_token = "<|im_start|>"
    good = render_example(tokenizer, "1 + 1?", REPLY, "<think>\n")
    bad = Example([good.input_ids[0], *good.input_ids], [IGNORED, *good.labels])
    check_example(tokenizer, good, REPLY)
    with pytest.raises(UserError, match="two beginning-of-text tokens"):
        check_example(tokenizer, bad, REPLY)


def test_labels_that_miss_the_reasoning_the_answer_or_the_end_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    good = render_example(tokenizer, "1 + 1?", REPLY, "<think>\n")
    without_end = Example(good.input_ids[:-1], good.labels[:-1])
    without_reasoning = render_example(tokenizer, "1 + 1?", "\\boxed{2}", "<think>\n")
    with pytest.raises(UserError, match="is not supervised, so the student would not learn to stop"):
        check_example(tokenizer, without_end, REPLY)
    with pytest.raises(UserError, match="<think> is not supervised"):
        check_example(tokenizer, without_reasoning, REPLY)
