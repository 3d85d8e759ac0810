"""Peak memory and seconds of the KL loss, forward and backward, beside the losses of other libraries, and who is right.

    python scripts/bench/kl_loss.py [--tokens 512] [--vocabulary 151936] [--hidden 896] [--k 64] [--rounds 3]

Every contestant starts from hidden states (N, H) and a head (V, H) and ends with their gradients, in a process of its own.
Dense ones get the teacher as hidden states and a head and project it themselves; sparse ones get its k likeliest tokens.
Ours and DistillKit's way compute the cross-entropy too where that is said. Memory is the kernel's peak over what the inputs
take, the gradients included; seconds are the median. Those that are not installed are named.

Then, on 64 tokens: how far the gradient is from one in float64, KL(p || p) at T = 1, 2 and 5, finite differences against
the gradient at T = 2, and p = 1 - 1e-9.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class Teacher:
    hidden: Tensor
    weight: Tensor
    ids: Tensor
    logprobs: Tensor


Loss = Callable[[Tensor, Tensor, Tensor, Teacher, float], Tensor]


def ours(mode: str, with_ce: bool) -> Loss:
    from r1distill.train.losses import fused_ce_kl  # noqa: PLC0415

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        found = fused_ce_kl(
            hidden,
            weight,
            labels,
            teacher.ids,
            teacher.logprobs,
            temperature=temperature,
            mode=mode,  # type: ignore[arg-type]
        )
        kl = temperature**2 * found.kl_sum
        return kl + found.ce_sum if with_ce else kl

    return loss


def dense(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """The formula as it stands."""
    log_q = (hidden @ weight.mT / temperature).log_softmax(-1)
    with torch.no_grad():
        log_p = (teacher.hidden @ teacher.weight.mT / temperature).log_softmax(-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum()


def trl_gkd() -> Loss:
    from trl.experimental.gkd import GKDTrainer  # noqa: PLC0415

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        with torch.no_grad():
            whole = (teacher.hidden @ teacher.weight.mT)[None]
        return GKDTrainer.generalized_jsd_loss(
            (hidden @ weight.mT)[None], whole, labels[None], beta=0, temperature=temperature, reduction="sum"
        )

    return loss


def trl_chunked() -> Loss:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction  # noqa: PLC0415

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        found = ChunkedDivergenceFunction.apply(
            hidden, weight, None, teacher.hidden, teacher.weight, None, 0.0, temperature
        )
        return found[0].sum()

    return loss


def liger() -> Loss:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        fused = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, temperature=temperature, compiled=False
        )
        return fused(hidden, weight, teacher.hidden, teacher.weight, labels) * len(labels)

    return loss


def torchtune() -> Loss:
    from torchtune.modules.loss import ForwardKLWithChunkedOutputLoss  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        if temperature != 1.0:
            raise NotImplementedError("has no temperature")
        with torch.no_grad():
            whole = [(part @ teacher.weight.mT)[None] for part in teacher.hidden.chunk(8)]
        # its value is the cross-entropy from the teacher, whose gradient is that of the KL
        return ForwardKLWithChunkedOutputLoss(8)(
            [(part @ weight.mT)[None] for part in hidden.chunk(8)], whole, labels[None]
        ) * len(labels)

    return loss


CONTESTANTS: dict[str, tuple[str | None, Callable[[], Loss]]] = {
    "r1distill, CE + KL": (None, lambda: ours("conditional", True)),
    "r1distill, KL": (None, lambda: ours("conditional", False)),
    "dense formula": (None, lambda: dense),
    "TRL GKD": ("trl", trl_gkd),
    "TRL chunked divergence": ("trl", trl_chunked),
    "Liger fused JSD": ("liger_kernel", liger),
    "torchtune chunked KL": ("torchtune", torchtune),
}


def inputs(
    n: int, v: int, h: int, k: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Teacher]:
    chance = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, h, generator=chance).to(dtype)
    weight = (torch.randn(v, h, generator=chance) * (3 / h**0.5)).to(dtype)
    of_teacher = hidden + 0.3 * torch.randn(n, h, generator=chance).to(dtype)
    ids, logprobs = [], []
    for part in of_teacher.split(64):
        top, places = (part @ weight.mT).log_softmax(-1).topk(k)
        ids.append(places)
        logprobs.append(top)
    labels = torch.randint(v, (n,), generator=chance)
    teacher = Teacher(of_teacher, weight, torch.cat(ids), torch.cat(logprobs))
    return hidden.requires_grad_(), weight.clone().requires_grad_(), labels, teacher


def status(key: str) -> int:
    """In KiB, of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1])


def measure(name: str, options: argparse.Namespace) -> None:
    """In a process of its own: prints seconds and peak MiB over the inputs."""
    loss = CONTESTANTS[name][1]()
    small = inputs(8, 1000, options.hidden, 8)
    loss(*small, 1.0).backward()  # warms up the imports and the kernels
    hidden, weight, labels, teacher = inputs(options.tokens, options.vocabulary, options.hidden, options.k)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    seconds = []
    for _ in range(options.rounds):
        hidden.grad = weight.grad = None
        started = time.perf_counter()
        loss(hidden, weight, labels, teacher, 1.0).backward()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds), "mib": (status("VmHWM") - before) / 1024}))


def check(name: str) -> dict[str, Any]:
    """How right it is, on 64 tokens and 2,000 words."""
    loss, found = CONTESTANTS[name][1](), {}

    def run(temperature: float, case: tuple[Tensor, Tensor, Tensor, Teacher]) -> tuple[float, Tensor]:
        hidden, weight, labels, teacher = case
        value = loss(hidden, weight, labels, teacher, temperature)
        [gradient] = torch.autograd.grad(value, [hidden])
        return float(value.detach()), gradient

    is_sparse = "r1distill" in name
    k = 2000 if is_sparse else 8  # the whole vocabulary: its gradient is then that of the dense formula
    case = inputs(64, 2000, 64, k)
    hidden, weight, labels, teacher = inputs(64, 2000, 64, k, torch.float64)
    [exact] = torch.autograd.grad(dense(hidden, weight, labels, teacher, 1.0), [hidden])
    found["gradient error"] = f"{float((run(1.0, case)[1].double() - exact).norm() / exact.norm()):.1e}"
    for temperature in (1.0, 2.0, 5.0):
        same = inputs(64, 2000, 64, 64)
        with torch.no_grad():
            same[3].hidden = same[0].detach().clone()
            logprobs, ids = (same[0] @ same[1].mT).log_softmax(-1).topk(64)
        same = (*same[:3], Teacher(same[3].hidden, same[1].detach(), ids, logprobs))
        try:
            value, gradient = run(temperature, same)
            found[f"KL(p||p), T = {temperature:g}"] = f"{value / 64:.1e}"
        except NotImplementedError as error:
            found[f"KL(p||p), T = {temperature:g}"] = str(error)
    try:
        wide = inputs(16, 300, 32, 20, torch.float64)
        value, gradient = run(2.0, wide)
        direction = torch.randn_like(wide[0])
        step = 1e-4
        moved = [
            run(2.0, ((wide[0] + sign * step * direction).detach().requires_grad_(), *wide[1:]))[0] for sign in (1, -1)
        ]
        slope = (moved[0] - moved[1]) / (2 * step)
        found["slope / gradient"] = f"{slope / float((gradient * direction).sum()):.3f}"
    except (NotImplementedError, RuntimeError) as error:
        found["slope / gradient"] = str(error).splitlines()[0][:40]
    certain = inputs(4, 100, 100, 8)
    with torch.no_grad():
        certain[0].copy_(40 * torch.eye(100)[:4])
        head = torch.eye(100)
        logprobs, ids = (certain[0] @ head.mT).log_softmax(-1).topk(8)
    case = (certain[0], head.requires_grad_(), certain[2], Teacher(certain[0].detach(), head.detach(), ids, logprobs))
    value, gradient = run(1.0, case)
    found["p = 1"] = "finite" if torch.isfinite(gradient).all() and abs(value) < 1e9 else f"{value}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--check", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return measure(options.one, options)
    if options.check:
        return print(json.dumps(check(options.check)))
    print(f"N = {options.tokens:,}, H = {options.hidden:,}, V = {options.vocabulary:,}, K = {options.k}")
    present = {
        name: package for name, (package, _) in CONTESTANTS.items() if not package or importlib.util.find_spec(package)
    }
    for name in CONTESTANTS:
        if name not in present:
            print(f"{name:26} not installed")
            continue
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", name], capture_output=True, text=True)
        if done.returncode:
            print(f"{name:26} failed: {done.stderr.strip().splitlines()[-1][:90]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"{name:26} {found['seconds']:7.1f} s {found['mib']:8,.0f} MiB", flush=True)
    for name in (name for name in present if "CE" not in name):  # the checks are of the KL
        done = subprocess.run([sys.executable, __file__, "--check", name], capture_output=True, text=True)
        lines = (done.stdout if not done.returncode else done.stderr).strip().splitlines()
        print(f"{name:26} {lines[-1][:200]}")


if __name__ == "__main__":
    main()
