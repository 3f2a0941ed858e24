"""Adapter configs as public tools write them, rebuilt from what each documents.

A config is what its release of PEFT writes, with what the tool changes in it.
"""

from typing import Any, NamedTuple

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
QV = ("q_proj", "v_proj")

V03: dict[str, Any] = {
    "base_model_name_or_path": "org/base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 8,
    "task_type": "CAUSAL_LM",
}
V02 = V03 | {"enable_lora": None, "merge_weights": False}
V05 = V03 | {
    "auto_mapping": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "revision": None,
}
V07 = V05 | {
    "alpha_pattern": {},
    "loftq_config": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "rank_pattern": {},
    "use_rslora": False,
}
V10 = V07 | {"layer_replication": None, "use_dora": False}
V13 = V10 | {"eva_config": None, "exclude_modules": None, "lora_bias": False}
V15 = V13 | {"corda_config": None, "trainable_token_indices": None}
V17 = V15 | {"qalora_group_size": 16, "target_parameters": None, "use_qalora": False}
V18 = V17 | {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "ensure_weight_tying": False,
    "peft_version": "0.18.0",
}
SPEECH = "(?:language|text|llm|model)"
UNSLOTH = (
    rf"(?:.*?{SPEECH}.*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    rf"(?:{'|'.join(LINEAR)}).*?)|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:self_attn|mlp)\."
    rf"(?:(?:{'|'.join(LINEAR)})))"
)


class PublicAdapter(NamedTuple):
    """A config, and what its tool has stored: modules of layers."""

    config: dict[str, Any]
    modules: tuple[str, ...] = LINEAR
    layers: tuple[int, ...] = (0, 1)


def _named(base: dict[str, Any], modules: tuple[str, ...] = LINEAR, **more: Any) -> PublicAdapter:
    return PublicAdapter(base | {"target_modules": list(modules)} | more, modules)


def _some(base: dict[str, Any], layers: tuple[int, ...], **more: Any) -> PublicAdapter:
    return PublicAdapter(base | {"target_modules": list(LINEAR)} | more, LINEAR, layers)


READ = {
    "alpaca-lora": _named(V02, QV),
    "alpaca-lora, four": _named(V02, ATTENTION, r=16),
    "fastchat": _named(V03, QV, lora_dropout=0.1),
    "guanaco": _named(V03, r=64, lora_dropout=0.0),
    "open-instruct": _named(V05, r=64, inference_mode=False),
    "peft 0.5": _named(V05, QV, revision="main"),
    "peft 0.7": _named(V07),
    "peft 0.10": _named(V10),
    "peft 0.13": _named(V13),
    "peft 0.15": _named(V15),
    "peft 0.17": _named(V17),
    "peft 0.18": _named(V18),
    "llama-factory": _named(V10, lora_dropout=0.0),
    "llama-factory, rslora": _named(V10, use_rslora=True, r=16),
    "llama-factory, 2023": _named(V05, QV, lora_alpha=32.0),
    "axolotl": _named(V07, r=32, lora_alpha=64),
    "axolotl, qlora": _named(V10, r=32, loftq_config={}, inference_mode=None),
    "axolotl, upper layers": _some(V07, (1,), layers_to_transform=[1]),
    "axolotl, one layer": _some(V10, (1,), layers_to_transform=1, layers_pattern="layers"),
    "unsloth": _named(V10, r=16, lora_dropout=0, revision="unsloth"),
    "unsloth, mapped": _named(
        V13, auto_mapping={"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
        task_type=None,
    ),
    "unsloth, by pattern": PublicAdapter(V17 | {"target_modules": UNSLOTH}),
    "swift": _named(V10, lora_dtype=None, lorap_lr_ratio=None, lorap_emb_lr=1e-6),
    "swift, by pattern": PublicAdapter(
        V13 | {"target_modules": r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*"}
    ),
    "swift, by projection": PublicAdapter(
        V15 | {"target_modules": r"^(model(?=\.).*\.(gate_proj|k_proj|up_proj|v_proj|q_proj|o_proj"
               r"|down_proj))$"}
    ),
    "trl, all linear": PublicAdapter(V15 | {"target_modules": "all-linear"}),
    "trl, grpo": _named(V17, QV, r=32, lora_alpha=64),
    "torchtune": PublicAdapter(
        {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA",
         "base_model_name_or_path": "org/base"}, QV,
    ),
    "mergekit": _named(
        V10, r=8, rank_pattern={"model.layers.1.mlp.down_proj": 4, "k_proj": 2},
        alpha_pattern={"model.layers.1.mlp.down_proj": 4, "k_proj": 2},
    ),
    "predibase": _named(V07, QV, r=16, lora_alpha=32),
    "s-lora": _named(V03, ATTENTION, r=64),
    "opus decoder as seq2seq": _named(V05, QV, task_type="SEQ_2_SEQ_LM"),
    "layers by pattern": PublicAdapter(
        V07 | {"target_modules": r".*\.1\.self_attn\.(q|v)_proj"}, QV, (1,)
    ),
    "ranks by anchored pattern": _named(
        V10, QV, rank_pattern={r"^model.layers.0.self_attn.q_proj": 3}
    ),
    "without the first layer": PublicAdapter(
        V13 | {"target_modules": "all-linear", "exclude_modules": r".*\.layers\.0\..*"}, LINEAR,
        (1,),
    ),
    "without the mlp": PublicAdapter(
        V15 | {"target_modules": "all-linear", "exclude_modules": list(LINEAR[4:])}, ATTENTION
    ),
    "gaussian start": _named(V07, init_lora_weights="gaussian"),
    "eva start": _named(
        V13, init_lora_weights="eva",
        eva_config={"rho": 2.0, "tau": 0.99, "use_label_mask": True, "whiten": False},
    ),
    "orthogonal start": _named(V17, init_lora_weights="orthogonal"),
    "no start": _named(V10, QV, init_lora_weights=False),
    "offloaded while it trained": _named(V13, runtime_config={"ephemeral_gpu_offload": False}),
    "of a later release": _named(V18, some_new_setting=None),
    "alpha below rank": _named(V10, r=16, lora_alpha=1),
}  # fmt: skip
"""Of low-rank adapters; each is read."""

REFUSED = {
    "dora": (_named(V10, use_dora=True), "use_dora"),
    "with embeddings": (
        _named(V10, modules_to_save=["embed_tokens", "lm_head"]), "modules_to_save"
    ),
}  # fmt: skip
"""What PEFT reads and we do not, with the setting that is named."""
