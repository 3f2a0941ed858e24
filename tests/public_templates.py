"""More chat templates of public checkpoints, rebuilt from what their model cards document.

Those of `chat_templates.py` stand in the tests of every property; these are only detected. Beside
each: the format that it must be read as, and the tokens of its tokenizer, `bos` and `eos` first.
"""

from chat_templates import (
    ALTERNATE,
    CHATML,
    CHATML_PROMPT,
    COMMAND_R,
    GEMMA2,
    GEMMA3,
    LLAMA31,
    MISTRAL_TEKKEN,
    MISTRAL_V3,
    OPENCHAT,
    PHI3,
    PHI4,
    SPLIT_SYSTEM,
    TURNS,
    by_default,
)

IM = ("<s>", "<|im_end|>", "<|im_start|>")
INST = ("<s>", "</s>")
LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
BOS_CHATML = "{{ bos_token }}" + CHATML

YI = (
    SPLIT_SYSTEM + "{% if system_message is defined %}{{ system_message }}{% endif %}"
    "{% for message in loop_messages %}{% if message['role'] == 'user' %}"
    "{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>\n<|im_start|>assistant\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)  # fmt: skip
VICUNA = (
    SPLIT_SYSTEM + "{% if system_message is not defined %}{% set system_message = 'A chat between a"
    " curious user and an assistant. The assistant answers politely.' %}{% endif %}"
    "{{ system_message }}{% for message in loop_messages %}" + ALTERNATE +
    "{% if message['role'] == 'user' %}{{ ' USER: ' + message['content'].strip() }}"
    "{% else %}{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)  # fmt: skip
LLAMA4 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|header_start|>' + message['role'] +"
    " '<|header_end|>\n\n' + message['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header_start|>assistant<|header_end|>\n\n' }}{% endif %}"
)
DEEPSEEK_V2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% else %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
EXAONE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + message['role'] + '|]' +"
    " message['content'] }}{% if message['role'] == 'user' %}{{ '\n' }}{% else %}"
    "{{ '[|endofturn|]\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)
TULU2 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] +"
    " (eos_token if message['role'] == 'assistant' else '') + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
DANUBE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + ALTERNATE +
    "{% if message['role'] == 'user' %}{{ '<|prompt|>' + message['content'] + eos_token }}"
    "{% else %}{{ '<|answer|>' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|answer|>' }}{% endif %}"
)  # fmt: skip
OPENCHAT36 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + ('System' if"
    " message['role'] == 'system' else 'GPT4 Correct ' + message['role'].title()) +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n' }}{% endif %}"
)
KIMI = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' }}{% endif %}"
    "{{ '<|im_' + message['role'] + '|>' + message['role'] + '<|im_middle|>' + message['content'] +"
    " '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"
)
HUNYUAN = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ message['content'] + '<｜hy_place▁holder▁no▁3｜>' }}{% elif message['role'] == 'user' %}"
    "{{ '<｜hy_User｜>' + message['content'] }}{% else %}"
    "{{ '<｜hy_Assistant｜>' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜hy_Assistant｜>' }}{% endif %}"
)
SEALLM = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " eos_token + '\n' }}{% endfor %}" + CHATML_PROMPT
)  # fmt: skip
SAILOR = TURNS.replace(
    "message['role']",
    "{'user': 'question', 'assistant': 'answer', 'system': 'system'}[message['role']]",
) + CHATML_PROMPT.replace("assistant", "answer")
ALPACA = (
    SPLIT_SYSTEM + "{{ bos_token }}{% if system_message is defined %}{{ system_message + '\n\n' }}"
    "{% endif %}{% for message in loop_messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\n' + message['content'] + '\n\n' }}{% else %}"
    "{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)  # fmt: skip

# Those that close no reply: what would a model learn to stop with?
GLM4 = (
    "[gMASK]<sop>{% for message in messages %}{{ '<|' + message['role'] + '|>\n' +"
    " message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SOLAR = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '### Assistant:\n' + message['content'] }}{% else %}"
    "{{ '### ' + message['role'].title() + ':\n' + message['content'] + '\n\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}{% endfor %}"
)

READ = {
    "hermes-2": ("chatml", CHATML, IM),
    "dolphin": ("chatml", CHATML, IM),
    "yi-chat": ("chatml", CHATML, IM),
    "mistral-orca": ("chatml", CHATML, IM),
    "minicpm3": ("chatml", CHATML, IM),
    "qwen1.5": ("chatml", by_default("You are a helpful assistant."), IM),
    "qwen2-math": ("chatml", by_default("Please reason step by step."), IM),
    "eurollm": ("internlm2", BOS_CHATML, IM),
    "hermes-2-pro": ("internlm2", BOS_CHATML, IM),
    "hermes-3": ("internlm2", BOS_CHATML, ("<|begin_of_text|>", *IM[1:])),
    "zephyr-gemma": ("internlm2", BOS_CHATML, ("<bos>", *IM[1:])),
    "lfm2": ("internlm2", BOS_CHATML, ("<|startoftext|>", *IM[1:])),
    "salamandra": ("internlm2", "{{ bos_token }}" + by_default("I am Salamandra."), IM),
    "yi-1.5": ("yi", YI, IM),
    "vicuna-1.5": ("vicuna", VICUNA, INST),
    "wizardlm-2": ("vicuna", VICUNA.replace("politely", "in detail"), INST),
    "llama4": (
        "llama4", LLAMA4, ("<|begin_of_text|>", "<|eot|>", "<|header_start|>", "<|header_end|>")
    ),
    "nemotron-70b": ("llama3.1", LLAMA31, LLAMA3),
    "codegemma": ("gemma", GEMMA2, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")),
    "gemma3n": ("gemma", GEMMA3, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")),
    "mathstral": ("mistral-v3", MISTRAL_V3, (*INST, "[INST]", "[/INST]")),
    "ministral": ("mistral-v3-tekken", MISTRAL_TEKKEN, (*INST, "[INST]", "[/INST]")),
    "starling": ("openchat", OPENCHAT, ("<s>", "<|end_of_turn|>")),
    "openchat-3.6": ("openchat-3.6", OPENCHAT36, LLAMA3),
    "aya-23": (
        "command-r", COMMAND_R,
        ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
         "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
    ),
    "deepseek-v2": (
        "deepseek-v2", DEEPSEEK_V2, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
    ),
    "exaone-3.5": ("exaone", EXAONE, ("[BOS]", "[|endofturn|]")),
    "tulu2": ("tulu2", TULU2, INST),
    "danube3": ("danube", DANUBE, (*INST, "<|prompt|>", "<|answer|>")),
    "kimi": (
        "kimi", KIMI,
        ("[BOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>",
         "<|im_middle|>"),
    ),
    "hunyuan": (
        "hunyuan", HUNYUAN,
        ("<｜hy_begin▁of▁sentence｜>", "<｜hy_place▁holder▁no▁2｜>", "<｜hy_place▁holder▁no▁3｜>",
         "<｜hy_User｜>", "<｜hy_Assistant｜>"),
    ),
    "seallm": ("seallm", SEALLM, ("<bos>", "<eos>", "<|im_start|>")),
    "sailor": ("sailor", SAILOR, IM),
    "alpaca": ("alpaca", ALPACA, INST),
    "phi3.5": (
        "phi3", PHI3,
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "phi4-reasoning": (
        "phi4",
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system<|im_sep|>You are Phi."
        "<|im_end|>' }}{% endif %}" + PHI4,
        ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>"),
    ),
}  # fmt: skip
"""Checkpoint -> its format, what its template writes, the tokens of its tokenizer."""

REFUSED = {
    "glm4": (GLM4, ("[BOS]", "<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>")),
    "solar": (SOLAR, INST),
}
"""Templates in which no token ends a reply."""
