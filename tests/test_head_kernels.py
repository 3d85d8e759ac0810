"""The Triton kernels of the head: in the interpreter, compiled for the GPUs they are for, and on one where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from r1distill.train import head, head_tiles
from r1distill.train.losses import fused_ce_kl

triton = pytest.importorskip("triton", reason="Triton is not installed; it comes with vLLM and with torch for CUDA")


@pytest.mark.extended
def test_with_the_kernels_in_the_interpreter_the_losses_pass_their_tests():
    cases = Path(__file__).parent / "kernels_in_interpreter.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(cases), "-q", "--no-cov", "-p", "no:cacheprovider"],
        cwd=cases.parent.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("fold_kernel", {"IS_TEMPERED": True, "WANTS_ENTROPY": True}),
        ("gradient_kernel", {"IS_TEMPERED": True, "WANTS_MEAN": True}),
    ],
)
def test_the_kernels_compile_for_cuda_without_a_gpu(name, constants, capability, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from r1distill.train import head_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(head_kernels, name)
    constants = {**constants, "BLOCK": head_kernels.WORDS_A_BLOCK, "z_column": 1}
    if name == "gradient_kernel":
        constants["out_column"] = 1

    def kind(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        if argument.endswith("_pointer"):
            return "*bf16" if argument == "out_pointer" else "*fp32"
        return "fp32" if argument == "temperature" else "i32"

    source = ASTSource(kernel, {argument: kind(argument) for argument in kernel.arg_names}, constants)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": head_kernels.WARPS}
    )
    assert f".target sm_{capability}" in compiled.asm["ptx"]
    assert compiled.asm["cubin"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("mode", "temperature"), [("tail", 1.0), ("conditional", 2.0), ("exact", 2.0)])
def test_on_a_gpu_the_kernels_are_as_near_to_float64_as_torch(dtype, mode, temperature, monkeypatch):
    chance = torch.Generator("cuda").manual_seed(0)
    n, h, v, k = 700, 256, 40_000, 16
    hidden = torch.randn(n, h, generator=chance, device="cuda").to(dtype)
    weight = (torch.randn(v, h, generator=chance, device="cuda") * 0.2).to(dtype)
    labels = torch.randint(v, (n,), generator=chance, device="cuda")
    teacher = (
        hidden + 0.3 * torch.randn(n, h, generator=chance, device="cuda").to(dtype)
    ).double() @ weight.mT.double()
    logprobs, ids = teacher.log_softmax(1).topk(k)
    tail = (teacher / temperature).log_softmax(1).scatter(1, ids, -torch.inf).logsumexp(1)

    def losses(states: torch.Tensor, matrix: torch.Tensor) -> list[torch.Tensor]:
        states, matrix = states.clone().requires_grad_(), matrix.clone().requires_grad_()
        found = fused_ce_kl(
            states, matrix, labels, ids, logprobs, teacher_tail=tail if mode == "exact" else None, mode=mode,
            temperature=temperature, label_smoothing=0.1, with_entropy=True,
        )  # fmt: skip
        gradients = torch.autograd.grad(found.ce_sum + found.kl_sum, (states, matrix))
        return [each.double() for each in (found.ce_sum, found.kl_sum, found.entropy_sum, *gradients)]

    assert head.on_tiles(torch.empty(0, device="cuda")) is not head_tiles
    exact = losses(hidden.double(), weight.double())
    by_kernels = losses(hidden, weight)
    monkeypatch.setattr(head, "on_tiles", lambda z: head_tiles)
    by_torch = losses(hidden, weight)
    for kernels, torchs, wanted in zip(by_kernels, by_torch, exact, strict=True):
        off = (kernels - wanted).norm() / wanted.norm()
        assert off < 1e-2
        assert off <= 1.1 * (torchs - wanted).norm() / wanted.norm() + 1e-6
