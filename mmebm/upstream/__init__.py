"""What mmengine and mmpretrain find of mmebm, and what of theirs is mended, once mmebm is imported."""

from mmebm.upstream import checkpoint_loading, config_lookup, data_configs, mmpretrain_tools, model_hub


def install() -> None:
    """Mend look-ups and tools now, or as soon as they are imported."""
    checkpoint_loading.install()
    config_lookup.install()
    data_configs.install()
    model_hub.install()
    mmpretrain_tools.install()
