"""What to sample: everything that decides the texts, and how many of them a problem wants."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

from r1distill.generate.backend import Sampling
from r1distill.prompting import Prompt
from r1distill.records import Outcome, Problem


@dataclass(frozen=True, slots=True)
class Plan:
    """What to sample: all that decides the texts, and how many of them."""

    model: str
    version: str  # of the model: its revision, or which training made it
    prompt: Prompt
    sampling: Sampling
    seed: int
    samples: int
    stop_after_correct: int
    max_samples: int = 0  # of a problem that is not solved by its `samples`; 0 is no more than these

    def request_sha(self, problem: Problem) -> str:
        """Hash of everything that decides the text of a sample, except its index and where it is cut off."""
        sampling = self.sampling
        parts = [
            self.prompt.user_message(problem),
            self.prompt.prefill,
            [sampling.temperature, sampling.top_p, sampling.top_k],
            [self.model, self.version],
            self.seed,
            # what is off leaves no mark, so that the samples of an earlier version stay good
            *([sampling.thinking_budget] if sampling.thinking_budget else []),
            *([{"system": self.prompt.system}] if self.prompt.system else []),
            *([{"template": self.prompt.template}] if self.prompt.template != "chat" else []),
        ]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]

    @property
    def needs_judge(self) -> bool:
        return self.stop_after_correct > 0 or self.max_samples > self.samples

    def room(self, outcomes: Collection[Outcome | None]) -> int:
        """How many more samples of a problem with these outcomes may be under way; 0 where it has enough."""
        correct = sum(outcome == "correct" for outcome in outcomes)
        if len(outcomes) >= self.samples:  # what comes now is for want of a single correct one
            return 1 if not correct and len(outcomes) < self.max_samples else 0
        left = self.samples - len(outcomes)
        return min(left, max(self.stop_after_correct - correct, 0)) if self.stop_after_correct else left

    def is_enough(self, outcomes: Collection[Outcome | None]) -> bool:
        """Whether a problem with these outcomes wants no more samples."""
        return self.room(outcomes) == 0

    def sample_seed(self, problem: Problem, sample: int, request_sha: str) -> int:
        """A seed of 31 bits, derived from the sample's identity."""
        identity = f"{self.seed}/{problem.id}/{sample}/{request_sha}"
        return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) >> 1
