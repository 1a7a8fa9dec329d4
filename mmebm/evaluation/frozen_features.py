"""Frozen features: extraction from a model."""

import math
from collections.abc import Sequence

import torch
from mmengine.dist import get_dist_info
from mmpretrain.models import TwoNormDataPreprocessor, VisionTransformer
from mmpretrain.models.selfsup import MFF, SparK
from mmpretrain.models.utils import SparseHelper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmebm.model_building import unwrapped
from mmebm.models.heads.energy_head import EnergyHead, as_tokens
from mmebm.models.patches import patch_grid


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """One feature vector per image, from the last stage of a model's backbone and without masking.

    Tokens (N, L, D) are averaged, without extra tokens such as the class token (``tokens_of_patches``); maps (N, D, H,
    W), and under an ``EnergyHead`` also (N, H, W, D), are averaged over positions; vectors (N, D) are unchanged. Of a
    stage of several tensors, all of these are concatenated.

    Args:
        model: A model with ``extract_feat``, such as MMPretrain's self-supervised ones, or such a model in DDP. The
            caller sets its training or evaluation mode.
        images: Images (N, C, H, W), as returned by the model's data preprocessor.

    Returns:
        Features (N, D), float32.

    Raises:
        TypeError: The model has no ``extract_feat``, or it returns no features of a known shape.
    """
    model = unwrapped(model)
    features = extract_feat(model, images)
    if isinstance(features, Sequence):
        features = features[-1]
    stage = features if isinstance(features, Sequence) else [features]
    head = getattr(model, 'head', None)
    widths = head.in_channels[-len(stage) :] if isinstance(head, EnergyHead) else [None] * len(stage)
    return torch.cat([_pooled(model, part, images, width) for part, width in zip(stage, widths, strict=True)], dim=1)


def width_of(model: nn.Module) -> int | None:
    """Width D of the last features; only an energy head tells it, and so maps (N, H, W, D), such as timm's Swin's."""
    head = getattr(model, 'head', None)
    return head.in_channels[-1] if isinstance(head, EnergyHead) else None


def _pooled(model: nn.Module, features: Tensor, images: Tensor, width: int | None) -> Tensor:
    """One vector (N, D) per image, float32, of features in any layout; without a width, maps are (N, D, H, W)."""
    if not isinstance(features, Tensor):
        raise TypeError(
            f'{type(model).__name__}.extract_feat returned a {type(features).__name__} as the last stage: expected a '
            'tensor, or several'
        )
    if not torch.is_floating_point(features) or features.dim() not in (2, 3, 4):
        raise TypeError(
            f'{type(model).__name__}.extract_feat returned {features.dtype} of shape {tuple(features.shape)}: '
            'expected floating point (N, D), (N, L, D) or (N, D, H, W)'
        )
    if features.dim() == 3:
        features = tokens_of_patches(model.backbone, features, images.shape[-2:]).mean(dim=1)
    elif features.dim() == 4:
        features = as_tokens(features, width or features.shape[1]).mean(dim=1)
    return features.float()


def tokens_of_patches(backbone: nn.Module, tokens: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Tokens (N, L, D) without the extra ones before them, as many as the backbone reports, or square patches leave."""
    grid = patch_grid(tokens.shape[1], image_size)
    surplus = tokens.shape[1] - math.prod(grid) if grid else 0
    if grid and not surplus:
        return tokens  # those behind a patch embedding tile the image: a class token joins later
    return tokens[:, num_extra_tokens(backbone) or surplus :]


def num_extra_tokens(backbone: nn.Module) -> int:
    """Number of tokens before those of the patches, 0 if the backbone does not report it."""
    timm_model = getattr(backbone, 'timm_model', None)
    return getattr(backbone, 'num_extra_tokens', getattr(timm_model, 'num_prefix_tokens', 0))


def extract_feat(model: nn.Module, images: Tensor) -> Tensor | Sequence[Tensor]:
    """``model.extract_feat`` without masking: MMPretrain's models pass ``mask=None`` themselves, except for two."""
    if not hasattr(model, 'extract_feat'):
        raise TypeError(f'{type(model).__name__} has no extract_feat(images): frozen features are read through it')
    if isinstance(model, MFF):
        # Its backbone passes an unmasked call on to MAE's, which masks by default.
        return VisionTransformer.forward(model.backbone, images)
    if isinstance(model, SparK):
        # Its sparse layers keep the mask of the last training step in a global, which every step sets again.
        SparseHelper._cur_active = images.new_ones(len(images), 1, 1, 1, dtype=torch.bool)
    return model.extract_feat(images)


def samples_of(model: nn.Module, loader: DataLoader, subset: str, labelled: bool = True) -> list[dict]:
    """This process's share of a data set, as samples that metrics of frozen features take.

    Args:
        model: A model with ``extract_feat``.
        loader: Batches of one clean image per sample; if not ``labelled``, also of pairs by ``CorruptedPair``, the last
            of which is the clean image.
        subset: ``train`` for the bank of classifiers.
        labelled: Whether images need labels.

    Returns:
        Samples with ``subset``, ``features`` (D,) of the clean image and, where there are, ``gt_label`` and ``views``
        (V, D), the features of its V corrupted versions.
    """
    samples: list[dict] = []
    for batch in loader:
        views, labels = _views_and_labels(model, batch, labelled)
        *corrupted, clean = [pooled_features(model, images).cpu() for images in views]
        fields = dict(features=clean)
        if corrupted:
            fields['views'] = torch.stack(corrupted, dim=1)
        for i, label in enumerate(labels):
            sample = dict(subset=subset, **{name: values[i] for name, values in fields.items()})
            samples.append(sample if label is None else sample | dict(gt_label=label))
    # DefaultSampler distributes images in turn and repeats some at the end for equal shares. Those are dropped here,
    # since the metrics gather bank and queries together and could only drop repeated queries.
    rank, world_size = get_dist_info()
    return samples[: len(range(rank, len(loader.dataset), world_size))]


def _views_and_labels(model: nn.Module, batch: dict, labelled: bool) -> tuple[list[Tensor], list]:
    """Views, each (N, C, H, W) and normalised for the model, the clean one last, and labels, None where there is none.

    Raises:
        ValueError: Labels are needed, and there is not exactly one image per sample, or an image has no label.
    """
    model = unwrapped(model)
    inputs = batch['inputs']
    views = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    # Uncollated, they are a list of images; pairs of several views are a list of batches.
    if not all(isinstance(view, Tensor) and view.dim() == 4 for view in views) or (labelled and len(views) > 1):
        raise ValueError(
            'frozen features need batches of one image per sample: use '
            "collate_fn=dict(type='default_collate'), and, with a bank, no CorruptedPair or MultiView in their "
            'pipelines'
        )
    prepared = [_prepared(model, batch, view) for view in views]
    samples = prepared[-1].get('data_samples') or []
    labels = [sample.get('gt_label') for sample in samples] or [None] * len(views[-1])
    if labelled and (len(labels) != len(views[-1]) or any(label is None for label in labels)):
        raise ValueError(
            'frozen features: images have no gt_label: use labelled data sets, or leave out the bank of '
            'FrozenFeatureHook for metrics that need no labels'
        )
    return [data['inputs'] for data in prepared], labels


def _prepared(model: nn.Module, batch: dict, images: Tensor) -> dict:
    """The batch with one view of its images, as the model's data preprocessor returns it."""
    # TwoNorm's also normalises a second view, for the target generator.
    is_two_norm = isinstance(model.data_preprocessor, TwoNormDataPreprocessor)
    data = model.data_preprocessor({**batch, 'inputs': [images] * 2 if is_two_norm else images}, False)
    return data if isinstance(data['inputs'], Tensor) else {**data, 'inputs': data['inputs'][0]}
