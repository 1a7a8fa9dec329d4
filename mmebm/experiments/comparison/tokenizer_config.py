"""Where the configs of BEiT and CIM have the tokenizer that a comparison trains for them."""

from mmengine.config import Config, ConfigDict


def tokenizer_of(cfg: Config) -> ConfigDict:
    """The tokenizer whose ``init_cfg`` loads a checkpoint: BEiT's target generator, or the model of CIM's tokenizer."""
    return cfg.model.tokenizer.model if 'tokenizer' in cfg.model else cfg.model.target_generator


def use_untrained(cfg: Config) -> None:
    """Let the tokenizer of a config have random weights, to measure the cost of a step that learns nothing."""
    tokenizer_of(cfg).init_cfg = None
    if 'tokenizer' in cfg.model:
        cfg.model.tokenizer.checked = False
