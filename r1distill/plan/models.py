"""The shape of a model, from its config.json: how many parameters it has, and where."""

import importlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from r1distill.errors import UserError, require_packages
from r1distill.models import HUB_ID
from r1distill.prune_section import Prune

KNOWN = Path(__file__).with_name("known_models.json")
DENSE = ("llama", "mistral", "qwen2", "qwen3")
MIXTURE = ("deepseek_v3",)
BYTES_A_WEIGHT = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention of DeepSeek-V2 (https://arxiv.org/abs/2405.04434); sizes of one head, and two ranks."""

    query_rank: int
    key_value_rank: int
    nope: int  # of queries and keys, without positions
    rope: int  # with positions
    value: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture in place of the MLP of all layers but the first `dense_layers`."""

    routed: int
    shared: int
    active: int  # of the routed ones, for a token
    intermediate: int
    dense_layers: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of one of the families that are known here. `source`: where the config was read."""

    name: str
    source: str
    family: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    tied: bool
    positions: int
    stored_bytes: float  # a weight of the published checkpoint
    attention_bias: bool = False
    mlp_bias: bool = False
    latent: Latent | None = None
    experts: Experts | None = None

    @property
    def query_size(self) -> int:
        return self.heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Of the keys of a token in a layer, and again of its values."""
        return self.key_value_heads * self.head_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The projections of a dense layer by their names in transformers: (in, out)."""
        hidden, wide = self.hidden, self.intermediate
        return {
            "q_proj": (hidden, self.query_size),
            "k_proj": (hidden, self.key_value_size),
            "v_proj": (hidden, self.key_value_size),
            "o_proj": (self.query_size, hidden),
            "gate_proj": (hidden, wide),
            "up_proj": (hidden, wide),
            "down_proj": (wide, hidden),
        }

    @property
    def attention_parameters(self) -> int:
        if self.latent:
            each, hidden = self.latent, self.hidden
            query = hidden * each.query_rank + each.query_rank * (1 + self.heads * (each.nope + each.rope))
            key = hidden * (each.key_value_rank + each.rope)
            value = each.key_value_rank * (1 + self.heads * (each.nope + each.value))
            return query + key + value + self.heads * each.value * hidden
        weights = sum(a * b for name, (a, b) in self.linears.items() if name[0] in "qkvo")
        bias = self.query_size + 2 * self.key_value_size
        if self.family != "qwen2":  # which has none on its output
            bias += self.hidden
        norms = 2 * self.head_size if self.family == "qwen3" else 0
        return weights + (bias if self.attention_bias else 0) + norms

    @property
    def layer_parameters(self) -> int:
        """Of a dense layer: attention, MLP, two norms."""
        bias = 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        return self.attention_parameters + 3 * self.hidden * self.intermediate + bias + 2 * self.hidden

    def pruned(self, prune: Prune | None) -> "Shape":
        """What [prune] leaves of it. A Qwen2 with fewer heads is saved as a Llama."""
        if prune is None:
            return self
        layers, intermediate, groups = prune.sizes(self.layers, self.intermediate, self.key_value_heads)
        heads = groups * self.heads // self.key_value_heads
        family = "llama" if self.family == "qwen2" and groups < self.key_value_heads else self.family
        return replace(
            self, family=family, layers=layers, intermediate=intermediate, key_value_heads=groups, heads=heads
        )

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, a shared embedding once."""
        return self.layers_parameters(False) + (1 if self.tied else 2) * self.embedding_parameters + self.hidden

    @property
    def computing_parameters(self) -> int:
        """Those that a token is multiplied with: the layers (of a mixture the active part) and the head."""
        return self.layers_parameters(True) + self.head_parameters

    def layers_parameters(self, active_only: bool) -> int:
        if not self.experts:
            return self.layers * self.layer_parameters
        each = self.experts
        expert = 3 * self.hidden * each.intermediate
        used = each.shared + (each.active if active_only else each.routed)
        mixture = self.attention_parameters + 2 * self.hidden + each.routed * self.hidden + used * expert
        return each.dense_layers * self.layer_parameters + (self.layers - each.dense_layers) * mixture

    @property
    def cache_bytes_a_token(self) -> int:
        """Of the key-value cache of all layers in bfloat16; of latent attention the latent alone."""
        a_layer = self.latent.key_value_rank + self.latent.rope if self.latent else 2 * self.key_value_size
        return 2 * self.layers * a_layer


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """The configs that are shipped, by name: {"source", "config"}."""
    return json.loads(KNOWN.read_text(encoding="utf-8"))


def load_shape(name: str, key: str) -> Shape:
    """Of a folder, a model that is known here, or one on the Hub. `key` of the recipe is for the error.

    Raises UserError where there is no config to be had, or it is of a family that is not known here.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return shape_of(name, str(folder / "config.json"), read_config(folder / "config.json", key), key)
    if name in known_models():
        entry = known_models()[name]
        return shape_of(name, entry["source"], entry["config"], key)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        known = ", ".join(known_models())
        raise UserError(f"{key} = {name}: no such folder; give a model folder, a Hub id, or one of: {known}")
    require_packages(f"{key} = {name}: its config on the Hub", "transformers")
    hub = importlib.import_module("huggingface_hub")
    try:
        path = Path(hub.hf_hub_download(name, "config.json"))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{key} = {name}: its config is not to be had from the Hub: {reason}") from None
    return shape_of(name, f"https://huggingface.co/{name}", read_config(path, key), key)


def read_config(path: Path, key: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{key}: {path.parent}: a folder without config.json; give a Hugging Face model") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} cannot be read: {error}; give a Hugging Face model") from None


def shape_of(name: str, source: str, config: dict[str, Any], key: str) -> Shape:
    """From the keys of a config.json. Raises UserError naming what is not known or not there."""
    family = config.get("model_type")
    if family not in DENSE + MIXTURE:
        raise UserError(
            f"{key} = {name}: plan does not know model_type = {family!r}; it knows {', '.join(DENSE + MIXTURE)}"
        )
    try:
        heads = config["num_attention_heads"]
        stored = (config.get("quantization_config") or {}).get("quant_method")
        return Shape(
            name=name,
            source=source,
            family=family,
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            key_value_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            tied=config.get("tie_word_embeddings", False),
            positions=config["max_position_embeddings"],
            stored_bytes=BYTES_A_WEIGHT.get(stored or config.get("dtype") or config.get("torch_dtype") or "", 2.0),
            attention_bias=config.get("attention_bias", family == "qwen2"),
            mlp_bias=config.get("mlp_bias", False),
            latent=latent_of(config) if family == "deepseek_v3" else None,
            experts=experts_of(config) if family == "deepseek_v3" else None,
        )
    except KeyError as error:
        raise UserError(f"{key} = {name}: {source} has no {error}, which plan needs") from None


def latent_of(config: dict[str, Any]) -> Latent:
    return Latent(
        query_rank=config["q_lora_rank"],
        key_value_rank=config["kv_lora_rank"],
        nope=config["qk_nope_head_dim"],
        rope=config["qk_rope_head_dim"],
        value=config["v_head_dim"],
    )


def experts_of(config: dict[str, Any]) -> Experts:
    return Experts(
        routed=config["n_routed_experts"],
        shared=config["n_shared_experts"],
        active=config["num_experts_per_tok"],
        intermediate=config["moe_intermediate_size"],
        dense_layers=config["first_k_dense_replace"],
    )
