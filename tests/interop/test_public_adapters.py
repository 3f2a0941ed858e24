"""The configs of `tests/public_adapters.py` are ones that PEFT reads, too."""

import json

import public_adapters as adapters
import pytest
from peft import LoraConfig, PeftConfig

CONFIGS = {name: one.config for name, one in adapters.READ.items()} | {
    name: one.config for name, (one, _) in adapters.REFUSED.items()
}


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")  # settings of other tools
@pytest.mark.parametrize("name", CONFIGS)
def test_peft_reads_the_config_of_a_public_tool(tmp_path, name):
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIGS[name]))
    found = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(found, LoraConfig)
    assert (found.r, found.lora_alpha) == (CONFIGS[name]["r"], CONFIGS[name]["lora_alpha"])
