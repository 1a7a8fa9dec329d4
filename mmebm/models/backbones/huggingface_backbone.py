"""Vision models of HuggingFace's transformers as backbones."""

import re
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmebm.registry import MODELS

# Model type and name of weights that the last features do not depend on: mask tokens, and a norm after the pooling.
UNUSED = re.compile(r'\w+ embeddings\.mask_token|convnext(v2)? layernorm\..*')


@MODELS.register_module()
class HuggingFaceBackbone(BaseModule):
    """A vision model of HuggingFace's ``transformers``, without the pooling after its last features.

    Args:
        model_name: A model on HuggingFace's hub, or a local folder written by ``save_pretrained``.
        pretrained: Whether to load the weights of ``model_name``, not only its config.
        config: Instead of ``model_name``: ``model_type`` and options of that type's config, such as
            ``dict(model_type='vit', hidden_size=192)``.
        init_cfg: As in mmengine's BaseModule. If not given, the model keeps its weights from transformers.

    Raises:
        ImportError: transformers is not installed.
        ValueError: Not exactly one of ``model_name`` and ``config`` is given, ``config`` has no known ``model_type``,
            or ``pretrained`` is set without ``model_name``.
    """

    def __init__(
        self,
        model_name: str | None = None,
        pretrained: bool = False,
        config: dict[str, Any] | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise ImportError('HuggingFaceBackbone needs transformers: pip install "transformers>=4.53,<5"') from error
        if (model_name is None) == (config is None):
            raise ValueError("HuggingFaceBackbone: give either model_name or config=dict(model_type='vit', ...)")
        if pretrained and model_name is None:
            raise ValueError('HuggingFaceBackbone: pretrained=True needs a model_name')
        if config is not None and 'model_type' not in config:
            raise ValueError(f"HuggingFaceBackbone: config needs a model_type, such as 'vit'; it has {[*config]}")
        if pretrained:
            self.model = AutoModel.from_pretrained(model_name)
        elif model_name:
            self.model = AutoModel.from_config(AutoConfig.from_pretrained(model_name))
        else:
            self.model = AutoModel.from_config(AutoConfig.for_model(**config))
        if hasattr(self.model, 'pooler'):
            self.model.pooler = nn.Identity()  # would never be trained: the energy reads the features before it
        for name, parameter in self.model.named_parameters():
            if UNUSED.fullmatch(f'{self.model.config.model_type} {name}'):
                parameter.requires_grad = False  # otherwise distributed training would wait for its gradient
        self._is_init = init_cfg is None  # transformers has initialised the weights

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """The last features, tokens (N, L, D) or a map (N, D, H, W), of normalised images (N, C, H, W)."""
        return (self.model(images).last_hidden_state,)
