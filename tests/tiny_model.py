"""A real Llama of 0.5M parameters with a byte-level tokenizer, small enough to learn eight sums by heart in seconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from r1distill.prompting import load_prompt
from r1distill.records import Problem
from r1distill.resources import find_file
from r1distill.train.render import prepare_tokenizer, render_example

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PROMPT = "prompts/quickstart/prompt.txt"
PROBLEMS = [
    Problem(problem=f"What is {a} + {b}?", answer=str(a + b)) for a, b in zip(range(2, 10), range(3, 11), strict=True)
]


def reply(problem: Problem) -> str:
    return f"<think>\n{problem.problem[8:-1]} = {problem.answer}\n</think>\n\n\\boxed{{{problem.answer}}}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    prepare_tokenizer(wrapped, find_file("prompts/chatml.jinja", "template").read_text(encoding="utf-8"), None, None)
    return wrapped


def make_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int = 128) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,  # with the usual 0.02 so small a model takes thousands of steps to attend
        tie_word_embeddings=True,
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|endoftext|>"),
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def learn_by_heart(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int = 100) -> float:
    """Train on the eight examples until they are known; returns the last loss."""
    prompt = load_prompt(PROMPT, "<think>\n")
    rows = [
        render_example(tokenizer, prompt.user_message(problem), reply(problem), prompt.prefill) for problem in PROBLEMS
    ]
    width = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([row.input_ids + [tokenizer.pad_token_id] * (width - len(row.input_ids)) for row in rows])
    labels = torch.tensor([row.labels + [-100] * (width - len(row.labels)) for row in rows])
    mask = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
