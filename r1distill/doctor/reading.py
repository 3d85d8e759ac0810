"""What the checks look at: the configs and tokenizers of the models, how training is launched, and nothing heavier."""

import importlib
from dataclasses import dataclass
from typing import Any

from r1distill.errors import UserError, require_packages
from r1distill.models import resolve_model
from r1distill.quickstart import embedded_folder
from r1distill.resources import read_file
from r1distill.train_sections import Train

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    ImportError,
)  # what transformers raises for a broken or foreign folder


@dataclass(frozen=True)
class Model:
    """`config` and `tokenizer` as transformers read them. `ends` are the tokens at which its own generation_config stops."""

    name: str
    config: Any
    tokenizer: Any
    ends: tuple[int, ...]

    @property
    def positions(self) -> int | None:
        """Tokens that its config allows in one sequence."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)


def read_model(name: str, revision: str | None, key: str, trust_remote_code: bool = False) -> Model:
    """Config, generation config and tokenizer. Raises UserError where they cannot be had (the Hub out of reach, …)."""
    require_packages(f"reading {key}", "transformers")
    if name.startswith("quickstart:") and not embedded_folder(name).is_dir():
        raise UserError(
            f"{key} = {name} is not converted yet, so its tokens are not known; any stage that uses it converts it (20 s)"
        )
    transformers = importlib.import_module("transformers")
    path = resolve_model(name, key)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key} = {name}: cannot be read: {reason}; give a folder of a whole Hugging Face model"
        ) from None
    try:
        ends = transformers.GenerationConfig.from_pretrained(path, revision=revision).eos_token_id
    except OSError:  # it has none; vLLM then takes the config's
        ends = config.eos_token_id
    return Model(name, config, tokenizer, tuple(ends if isinstance(ends, list) else [] if ends is None else [ends]))


@dataclass(frozen=True, slots=True)
class Launch:
    """How [train.launch] starts the training, as far as the checks care."""

    kind: str  # "process": one, "ddp", "fsdp" or "deepspeed"
    processes: int = 1
    fsdp_version: int = 1
    activation_checkpointing: bool = False
    gradient_clipping: Any = None  # of the DeepSpeed configuration
    context_parallel: int = 1
    sequence_parallel: int = 1


def read_launch(settings: Train) -> Launch:
    """From the accelerate file of [train.launch], its flags, which go over it, and what TRL takes itself in [train.args]."""
    flags = settings.launch
    file: dict[str, Any] = {}
    if "config_file" in flags:
        require_packages("reading train.launch.config_file", "accelerate")  # which brings yaml
        yaml = importlib.import_module("yaml")
        name = str(flags["config_file"])
        try:
            file = yaml.safe_load(read_file(name, "train.launch.config_file")) or {}
        except yaml.YAMLError as error:
            raise UserError(
                f"train.launch.config_file = {name}: not YAML: {' '.join(str(error).split())}; correct it"
            ) from None
    fsdp = file.get("fsdp_config") or {}
    deepspeed = file.get("deepspeed_config") or {}
    parallelism = file.get("parallelism_config") or {}
    own_fsdp = settings.args.get("fsdp_config") or {}

    def option(name: str, of_file: Any, default: Any) -> Any:
        value = flags.get(name, of_file)
        return default if value is None else value

    kind = "process"
    if flags.get("use_deepspeed") or file.get("distributed_type") == "DEEPSPEED" or "deepspeed" in settings.args:
        kind = "deepspeed"
    elif flags.get("use_fsdp") or file.get("distributed_type") == "FSDP" or settings.args.get("fsdp"):
        kind = "fsdp"
    elif flags:
        kind = "ddp"
    checkpointing = option("fsdp_activation_checkpointing", fsdp.get("fsdp_activation_checkpointing"), False)
    return Launch(
        kind=kind,
        processes=int(option("num_processes", file.get("num_processes"), 1)),
        fsdp_version=int(own_fsdp.get("version", option("fsdp_version", fsdp.get("fsdp_version"), 1))),
        activation_checkpointing=str(checkpointing).lower() == "true" or bool(own_fsdp.get("activation_checkpointing")),
        gradient_clipping=option("gradient_clipping", deepspeed.get("gradient_clipping"), None),
        context_parallel=int(option("parallelism_config_cp_size", parallelism.get("parallelism_config_cp_size"), 1)),
        sequence_parallel=int(option("parallelism_config_sp_size", parallelism.get("parallelism_config_sp_size"), 1)),
    )
