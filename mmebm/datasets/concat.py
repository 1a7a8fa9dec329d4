"""Data sets in a row."""

from mmengine.dataset import ConcatDataset as PlainConcatDataset

from mmebm.registry import DATASETS


@DATASETS.register_module()
class ConcatDataset(PlainConcatDataset):
    """mmengine's ``ConcatDataset`` in a config that says how to prepare an image from elsewhere.

    Args:
        *args: As in mmengine's ``ConcatDataset``.
        pipeline: Of an image that comes from none of the data sets. mmpretrain's inferencers, such as its
            ``FeatureExtractor``, read it in the config; the data sets have pipelines of their own.
        **kwargs: As in mmengine's ``ConcatDataset``.
    """

    def __init__(self, *args, pipeline: list | None = None, **kwargs):
        super().__init__(*args, **kwargs)
