"""What mmengine and mmpretrain find of mmebm, and what of theirs is mended, once mmebm is imported."""

from mmebm.upstream import config_lookup, mmpretrain_tools, model_hub


def install() -> None:
    """Mend look-ups and tools now, or as soon as they are imported."""
    config_lookup.install()
    model_hub.install()
    mmpretrain_tools.install()
