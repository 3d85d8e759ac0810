"""What every section of a recipe and of a task is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings of one stage. Frozen: nothing changes a recipe after it was read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
