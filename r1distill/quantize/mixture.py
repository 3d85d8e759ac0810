"""Models of which rounding would leave the most as it is."""

from typing import Any

from torch import nn

from r1distill.errors import UserError


def refuse_mixture(model: Any, key: str) -> None:
    """Raise UserError for a mixture whose experts are one tensor: only linear layers are rounded. It may be on meta."""
    convolutions = tuple(name for name, module in model.named_modules() if isinstance(module, nn.Conv1d))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and name.rpartition(".")[0] not in convolutions:
            raise UserError(
                f"{key}: {model.config.model_type} is a mixture whose experts are no linear layers ({name} is one tensor of "
                f"{tuple(parameter.shape)}), and only those are rounded; take {key} out, or take a dense student"
            )
