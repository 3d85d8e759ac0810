"""What the forward pass leaves for the backward pass, in bytes.

The counting follows Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198), equations 1 to 4, for the decoders of
transformers: RMSNorm in float32, rotary embeddings, grouped keys and values, SwiGLU, and an attention that keeps its
output and a logsumexp in place of the scores (https://arxiv.org/abs/2205.14135).
"""

from r1distill.plan.models import Shape
from r1distill.plan.work import Layout, Work
from r1distill.train.tile_size import CPU_TILE, CUDA_TILE

FULL_BYTES = 4  # float32
OFFLOAD_STASH = 5  # inputs of layers still on the device (trl.models.activation_offloading, max_fwd_stash_size)


def compute_bytes(work: Work, layout: Layout) -> int:
    """Of an activation: bfloat16 where the weights are, or mixed precision makes it so."""
    return 2 if work.mixed or work.dtype == "bfloat16" or layout.kind.startswith("zero") else 4


def stream_bytes(work: Work, layout: Layout) -> int:
    """Of the residual stream: autocast leaves it in the type of the weights, which FSDP2 and DeepSpeed cast before."""
    if layout.kind in ("single", "ddp"):
        return 2 if work.dtype == "bfloat16" else 4
    return compute_bytes(work, layout)


def by_autocast(work: Work, layout: Layout) -> bool:
    """Whether each projection casts its own input and weight: float32 weights in one process or DDP."""
    return work.mixed and stream_bytes(work, layout) == 4


def layer_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Of one layer, a token: what all of its operations save for their backward."""
    each, stream = compute_bytes(work, layout), stream_bytes(work, layout)
    lora = work.adapters is not None
    # a norm saves its input in float32, what it makes of that (not if its own weight is frozen), and its output is the
    # input of the projections
    norm = shape.hidden * (FULL_BYTES + (0 if lora else stream) + stream)
    queries = shape.query_size * each
    attention = queries + 2 * shape.key_value_size * each + queries  # after the rotation, and the output
    if work.attention == "eager":
        # the softmax in float32, what the values are multiplied with where that is another type, keys and values repeated
        attention += shape.heads * work.length * (FULL_BYTES + (each if each != FULL_BYTES else 0))
        attention += 2 * (shape.query_size - shape.key_value_size) * each
    else:
        attention += shape.heads * FULL_BYTES
    wide = 4 * shape.intermediate * each  # gate, its SiLU, up, and their product
    return 2 * norm + attention + wide + casts_bytes(shape, work, layout)


def casts_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Copies of inputs of projections in another type, a token: of autocast, and of adapters in float32."""
    inputs = {name: size for name, (size, _) in shape.linears.items()}
    copies = 0.0
    if by_autocast(work, layout):  # o_proj and down_proj have bfloat16 already
        copies += 2 * sum(size for name, size in inputs.items() if name not in ("o_proj", "down_proj"))
    adapters = work.adapters
    if adapters and layout.kind in ("single", "ddp") and stream_bytes(work, layout) == 2 and not adapters.quantized:
        # peft keeps adapters in float32 and casts what they read; autocast casts that back
        copies += (2 if work.mixed else FULL_BYTES) * sum(inputs[name] for name in adapters.targets)
    return copies


def transient_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Of the backward pass through a layer, a token, over what is saved: gradients of the SwiGLU and of the stream."""
    each, stream = compute_bytes(work, layout), stream_bytes(work, layout)
    return 2 * shape.intermediate * each + 2 * shape.hidden * stream


def saved_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Of all layers when the forward pass has ended, for the tokens of this process."""
    tokens = work.tokens / layout.sequence_parallel
    if not work.checkpointing:
        total = tokens * shape.layers * layer_bytes(shape, work, layout)
        # the first operation of a layer shares its input with the sum that ended the one before
        return total + mask_bytes(work, layout) + cast_weights(shape, work, layout)
    inputs = tokens * shape.layers * shape.hidden * stream_bytes(work, layout)
    if work.offload_activations:
        inputs *= min(1.0, OFFLOAD_STASH / shape.layers)
    return inputs + mask_bytes(work, layout)


def offloaded_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Of activations in the memory of the host."""
    if not (work.offload_activations and work.checkpointing):
        return 0.0
    return work.tokens / layout.sequence_parallel * shape.layers * shape.hidden * stream_bytes(work, layout)


def recomputed_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """At work in one layer of the backward pass: what checkpointing computes again, and the gradients on their way."""
    tokens = work.tokens / layout.sequence_parallel
    here = transient_bytes(shape, work, layout)
    if work.checkpointing:
        here += layer_bytes(shape, work, layout)
        if by_autocast(work, layout):
            here += 2 * shape.layer_parameters / max(tokens, 1)
    return tokens * here


def cast_weights(shape: Shape, work: Work, layout: Layout) -> float:
    """Autocast's bfloat16 copies of the projections, which live until the backward pass has used them."""
    return 2.0 * shape.layers * shape.layer_parameters if by_autocast(work, layout) else 0.0


def mask_bytes(work: Work, layout: Layout) -> float:
    """SDPA tells the sequences of one row apart by a mask of its length squared, boolean and then in numbers."""
    if work.attention in ("flash_attention_2", "flash_attention_3") or not work.one_row:
        return 0.0
    return float(work.tokens) ** 2 * (1 + compute_bytes(work, layout))


def head_bytes(shape: Shape, work: Work, layout: Layout) -> dict[str, float]:
    """Of the fused head (r1distill/train/head.py): {"saved", "backward", "weight_gradient"}.

    Saved are the last norm and the taught hidden states. The backward pass has their gradients in float32, two tiles of
    logits and two of the vocabulary's rows, in float32 too; the weight's gradient is whole, in the type of the weight.
    """
    tokens = work.tokens / layout.sequence_parallel
    stream = stream_bytes(work, layout)
    norm = shape.hidden * (FULL_BYTES + (0 if work.adapters else stream) + stream)
    saved = tokens * (norm + shape.hidden * stream + rows_bytes(work))
    tile = CUDA_TILE if work.device == "cuda" else CPU_TILE
    rows, words = min(tokens, tile.tokens), min(shape.vocabulary, tile.vocabulary)
    tiles = FULL_BYTES * words * (2 * rows + 2 * shape.hidden)
    cast = stream if stream != FULL_BYTES else 0
    gradients = tokens * shape.hidden * (FULL_BYTES + max(cast, 0 if cast else stream))
    weight = 0.0 if work.adapters else float(shape.head_parameters * stream)
    return {"saved": saved, "backward": tiles + gradients, "weight_gradient": weight}


def rows_bytes(work: Work) -> float:
    """Of the teacher's rows, a token: ids and logprobs as they come and of the taught tokens, and what the loss makes."""
    return work.rows * ((8 + 4) * 2 + 8 + 16 * 4.0)


def teacher_bytes(work: Work, layout: Layout, processes: int) -> float:
    """Of a teacher that runs beside the student: its weights, one layer's forward pass, its head, and four large tiles."""
    teacher = work.online
    if teacher is None:
        return 0.0
    each = 2 if work.dtype == "bfloat16" else 4
    weights = each * teacher.parameters
    gathered = 0.0
    if layout.kind == "fsdp2":
        weights //= processes
        gathered = each * (2 * teacher.layer_parameters + teacher.head_parameters)
    tokens = work.tokens / layout.sequence_parallel
    layer = each * (4 * teacher.hidden + teacher.query_size + 2 * teacher.key_value_size + 3 * teacher.intermediate)
    # trl.kernels.chunked_divergence: 4,096 tokens x 32,768 words, of both models
    tiles = 4 * FULL_BYTES * min(tokens, 4096) * min(teacher.vocabulary, 32768)
    return weights + gathered + tokens * (layer + each * teacher.hidden) + tiles
