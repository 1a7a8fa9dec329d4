"""A classifier that also predicts the energy of its input, for out-of-distribution detection."""

from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.registry import MODELS


@MODELS.register_module()
class EnergyClassifier(ImageClassifier):
    """An image classifier whose predictions also carry the image's ``energy``.

    Both heads share one forward pass of the backbone. The energy head needs the features on which it was pretrained: a
    frozen backbone, with the same outputs as in pretraining. The energy head itself is not trained.

    Args:
        energy_head: Config of the pretraining's ``EnergyHead``. Its weights are loaded from the checkpoint by
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='head.')``.
        **kwargs: As in mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: The backbone is not frozen.
    """

    def __init__(self, energy_head: dict | nn.Module, **kwargs):
        super().__init__(**kwargs)
        trainable = [name for name, p in self.backbone.named_parameters() if p.requires_grad]
        if trainable:
            raise ValueError(
                f'EnergyClassifier: the backbone would train ({trainable[0]} and {len(trainable) - 1} more), and its '
                'features would no longer fit the energy head; freeze it, as the configs in configs/linear do'
            )
        self.energy_head = energy_head if isinstance(energy_head, nn.Module) else MODELS.build(energy_head)
        self.energy_head.requires_grad_(False)

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> list[DataSample]:
        """Predictions, each with its ``energy``, a scalar, for normalised images (N, C, H, W)."""
        feats = self.extract_feat(inputs, stage='backbone')
        pooled = self.neck(feats) if self.with_neck else feats
        data_samples = self.head.predict(pooled, data_samples, **kwargs)
        for sample, energy in zip(data_samples, self.energy_head(feats, inputs), strict=True):
            sample.set_field(energy.clone(), 'energy')  # not a view of the whole batch's
        return data_samples
