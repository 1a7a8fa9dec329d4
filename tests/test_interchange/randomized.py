"""Pretraining checkpoints of tiny backbones in which every weight matters."""

import torch
from mmengine.config import Config

from mmebm.model_building import build

BACKBONES = {
    'VisionTransformer': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48),
        img_size=32,
        patch_size=8,
        out_type='raw',
    ),
    'SwinTransformer': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 1, 2, 2]),
        img_size=128,
        window_size=4,
    ),
    'ConvNeXt': dict(
        type='ConvNeXt', arch=dict(depths=[1, 2, 1, 1], channels=[8, 16, 24, 32]), gap_before_final_norm=False
    ),
    'ResNet': dict(type='ResNet', depth=50),
}
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Weights, biases, scales and statistics that all differ, of a size that keeps features near one."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        is_vector = value.ndim == 1
        if name.endswith(('num_batches_tracked', 'relative_position_index')):
            continue
        if name.endswith(('gamma', 'running_var')) or (is_vector and name.endswith('weight')):
            value.copy_(0.6 + 0.2 * noise.clamp(-2, 2))
        elif is_vector or name.endswith(('token', 'pos_embed', 'table', 'grn.beta')):
            value.copy_(0.3 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    return model


def save_checkpoint(path, backbone, to_rgb=True, normalization=NORMALISATION, **extra):
    """A checkpoint as mmengine's runner writes it, as far as exporting goes; returns the backbone."""
    model = randomize(build(backbone))
    state = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    state |= {'head.energy.weight': torch.ones(1, 4), 'log_step_size': torch.zeros(1)}
    model_cfg = dict(
        type='mmebm.EBMAlgorithm', backbone=backbone, data_preprocessor=normalization | dict(to_rgb=to_rgb)
    )
    torch.save(dict(state_dict=state, meta=dict(cfg=Config(dict(model=model_cfg)).pretty_text)) | extra, path)
    return model
