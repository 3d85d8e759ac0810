"""From the section `verify` of a recipe to the pool that it asks for."""

from r1distill.sections import Verify
from r1distill.verify.code import CodeSettings
from r1distill.verify.pool import VerifierPool


def open_pool(settings: Verify) -> VerifierPool:
    return VerifierPool(settings.workers, settings.timeout_s, settings.memory_gb, code_settings(settings))


def code_settings(settings: Verify) -> CodeSettings:
    return CodeSettings(
        allow_unsafe=settings.sandbox == "unsafe",
        test_timeout_s=settings.test_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        memory_gb=settings.program_memory_gb,
    )
