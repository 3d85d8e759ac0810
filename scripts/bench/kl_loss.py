"""Peak memory and seconds of the KL loss, forward and backward, beside the losses of other libraries, and who is right.

    python scripts/bench/kl_loss.py [--tokens 512 2048] [--vocabulary 151936] [--hidden 896] [--k 64] [--rounds 3]

Every contestant starts from hidden states (N, H) and a head (V, H) and ends with their gradients, in a process of its own,
in turns. Dense ones get the teacher as hidden states and a head and project it themselves; sparse ones get its k likeliest
tokens. Ours is shown with and without the cross-entropy. Memory is the process's peak over what the inputs take, the
gradients included; seconds are the median. Those that are not installed are named (Liger and torchtune are on the package
index; DistillKit is a checkout on the path).

Then, small: how far the gradient is from the dense formula's in float64; KL(p || p) at T = 1, 2 and 5, in nats a token, and
the norm of its gradient where the loss is a cross-entropy; the slope of finite differences over the gradient at T = 2;
and whether p = 1 stays finite.
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
from machine import status_kib
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


def distillkit(missing: str) -> Loss:
    from distillkit.lossfuncs.common import MissingProbabilityHandling  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from distillkit.lossfuncs.kl import sparse_kl_div  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher, temperature: float) -> Tensor:
        return temperature**2 * sparse_kl_div(
            (hidden @ weight.mT)[None], teacher.ids[None], teacher.logprobs[None], temperature=temperature,
            missing=MissingProbabilityHandling(missing), chunk_length=256,
        )  # fmt: skip

    return loss


CONTESTANTS: dict[str, tuple[str | None, Callable[[], Loss]]] = {
    "r1distill, CE + KL": (None, lambda: ours("conditional", True)),
    "r1distill, KL": (None, lambda: ours("conditional", False)),
    "dense formula": (None, lambda: dense),
    "TRL GKD": ("trl", trl_gkd),
    "TRL chunked divergence": ("trl", trl_chunked),
    "Liger fused JSD": ("liger_kernel", liger),
    "torchtune chunked KL": ("torchtune", torchtune),
    "DistillKit sparse, zero": ("distillkit", lambda: distillkit("zero")),
    "DistillKit sparse, uniform": ("distillkit", lambda: distillkit("symmetric_uniform")),
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


def measure(name: str, tokens: int, options: argparse.Namespace) -> None:
    """In a process of its own: prints seconds and peak MiB over the inputs."""
    loss = CONTESTANTS[name][1]()
    small = inputs(8, 1000, options.hidden, 8)
    loss(*small, 1.0).backward()  # warms up the imports and the kernels
    hidden, weight, labels, teacher = inputs(tokens, options.vocabulary, options.hidden, options.k)
    before = status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    seconds = []
    for _ in range(options.rounds):
        hidden.grad = weight.grad = None
        started = time.perf_counter()
        loss(hidden, weight, labels, teacher, 1.0).backward()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds), "mib": (status_kib("VmHWM") - before) / 1024}))


def check(name: str) -> dict[str, Any]:
    """How right it is, on 64 tokens and 2,000 words."""
    loss, found = CONTESTANTS[name][1](), {}

    def run(temperature: float, case: tuple[Tensor, Tensor, Tensor, Teacher]) -> tuple[float, Tensor]:
        hidden, weight, labels, teacher = case
        value = loss(hidden, weight, labels, teacher, temperature)
        [gradient] = torch.autograd.grad(value, [hidden])
        return float(value.detach()), gradient

    is_sparse = "r1distill" in name or "sparse" in name
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
            size = f"gradient {float(gradient.norm()):.0e}" if "torchtune" in name else f"{value / 64:.1e}"
            found[f"KL(p||p), T = {temperature:g}"] = size
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


def in_a_process(*arguments: str) -> dict[str, Any]:
    """What it printed, or {"failed": its last line}."""
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *arguments], capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:60]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--check", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return measure(options.one[0], int(options.one[1]), options)
    if options.check:
        return print(json.dumps(check(options.check)))
    present = [name for name, (package, _) in CONTESTANTS.items() if not package or importlib.util.find_spec(package)]
    for name in CONTESTANTS.keys() - present:
        print(f"{name}: not installed")
    for tokens in options.tokens:
        print(f"\nN = {tokens:,}, H = {options.hidden:,}, V = {options.vocabulary:,}, K = {options.k}")
        found = {name: in_a_process("--one", name, str(tokens)) for name in present}
        first = found[next(iter(CONTESTANTS))]
        for name, one in found.items():
            if "failed" in one:
                print(f"  {name:28} {one['failed']}")
                continue
            ratios = f"{one['seconds'] / first['seconds']:5.2f}x {one['mib'] / first['mib']:5.2f}x"
            print(f"  {name:28} {one['seconds']:7.1f} s {one['mib']:8,.0f} MiB   {ratios}", flush=True)
    for name in (name for name in present if "CE" not in name):  # the checks are of the KL
        print(f"\n{name}")
        for what, value in in_a_process("--check", name).items():
            print(f"  {what:18} {value}", flush=True)


if __name__ == "__main__":
    main()
