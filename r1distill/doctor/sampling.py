"""How the teacher is sampled, and whether that gives what the later stages need."""

from r1distill.doctor.findings import Finding, error, ok, warning
from r1distill.recipe import Recipe

DEFAULT_CAP = 20  # logprobs that a vLLM server gives out unless it was started with more
GREEDY_LOOPS = 0.5  # below it R1's own model card warns of loops; it recommends 0.5 to 0.7


def check_sampling(recipe: Recipe, has_cache: bool, makes_cache: bool) -> list[Finding]:
    """`has_cache`: distributions are in the run's folder; `makes_cache`: a stage of the recipe will put them there."""
    kl = recipe.train.kl
    if recipe.traces is not None:
        findings, remedy = [], 'cache.source = "transformers"'
        fine = ok("sampling", "[traces]", "the traces of others: no teacher is sampled")
    else:
        settings = recipe.generate
        findings, remedy = check_settings(recipe), "generate.keep_distributions = true"
        fine = ok("sampling", "temperature, logprobs", f"{settings.temperature:g}, the top {settings.logprobs}")
    if kl is not None and kl.online is None and not (has_cache or makes_cache):
        limit = "nothing here makes the teacher's distributions"
        findings.append(error("sampling", "[train.kl]", "no teacher_cache/", limit, remedy))
    return findings or [fine]


def check_settings(recipe: Recipe) -> list[Finding]:
    """Of [teacher], [generate] and [filter]."""
    settings, teacher = recipe.generate, recipe.teacher
    findings: list[Finding] = []
    if settings.temperature == 0 and settings.samples > 1:
        limit = f"{settings.samples} samples of a problem would be one and the same"
        findings.append(warning("sampling", "generate.temperature", "0", limit, "0.6, or samples = 1"))
    elif settings.temperature < GREEDY_LOOPS and "R1" in teacher.model:
        limit = f"below {GREEDY_LOOPS:g} R1 falls into loops"
        findings.append(warning("sampling", "generate.temperature", f"{settings.temperature:g}", limit, "0.6"))
    cap = teacher.engine.get("max_logprobs")
    if isinstance(cap, int) and 0 <= cap < settings.logprobs:
        remedy = "take it out: it follows generate.logprobs"
        limit = f"generate.logprobs = {settings.logprobs}"
        findings.append(error("sampling", "teacher.engine.max_logprobs", cap, limit, remedy))
    if teacher.backend == "server" and settings.logprobs > DEFAULT_CAP:
        limit = f"a vLLM server gives {DEFAULT_CAP} unless it was started with more"
        remedy = f"start it with `r1distill serve`, or with --max-logprobs {settings.logprobs}"
        findings.append(warning("sampling", "generate.logprobs", settings.logprobs, limit, remedy))
    mode = teacher.engine.get("logprobs_mode", "raw_logprobs")
    if settings.logprobs and mode != "raw_logprobs":
        limit = "entropies and divergences are of the model itself, raw_logprobs"
        findings.append(error("sampling", "teacher.engine.logprobs_mode", mode, limit, "take it out"))
    if settings.thinking_budget >= settings.max_tokens:
        limit = f"generate.max_tokens = {settings.max_tokens:,}"
        remedy = "leave room for the answer, some 2,000 tokens"
        findings.append(warning("sampling", "generate.thinking_budget", f"{settings.thinking_budget:,}", limit, remedy))
    if recipe.filter.max_mean_entropy_nats and not settings.logprobs:
        remedy = "set generate.logprobs = 20, or filter.max_mean_entropy_nats = 0"
        findings.append(
            warning(
                "sampling", "filter.max_mean_entropy_nats", recipe.filter.max_mean_entropy_nats, "no logprobs", remedy
            )
        )
    return findings
