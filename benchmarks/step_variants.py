"""The training steps that ``step_time.py`` measures: models, inputs and calls."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.config.config import get_installed_path
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.output import REPOSITORY
from mmebm.ops.double_backward import SecondOrderOperators

AUTOCAST = {'fp32': None, 'tf32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}
FP16_LOSS_SCALE = 2.0**16  # the initial one of AmpOptimWrapper


class Setting(NamedTuple):
    """One backbone at one size; ``config`` is the shipped config of the EBM."""

    config: str
    arch: str
    width: int
    image_size: int
    patch_size: int
    batch: int
    precision: str


SETTINGS = {
    'cpu': {
        'vit-base-p16-224': Setting('ebm-mask_vit-b_in1k', 'base', 768, 224, 16, batch=8, precision='fp32'),
        'vit-tiny-p4-32': Setting('ebm_vit-t_cifar10', 'deit-tiny', 192, 32, 4, batch=64, precision='fp32'),
    },
    'cuda': {
        'vit-base-p16-224': Setting('ebm-mask_vit-b_in1k', 'base', 768, 224, 16, batch=256, precision='bf16'),
        'vit-tiny-p4-32': Setting('ebm_vit-t_cifar10', 'deit-tiny', 192, 32, 4, batch=1024, precision='bf16'),
    },
}


EAGER = dict(training_step=dict(compile=False))


def ebm_variants(setting: Setting) -> dict[str, dict]:
    """What each variant changes in the shipped config's model."""
    quarter = dict(patch_size=setting.patch_size, visible=0.25, corrupted=0.25)
    return {
        'ebm': {},
        'ebm-eager-sdpa-math': EAGER,
        'ebm-eager': EAGER,
        'ebm-compiled': dict(training_step=dict(compile=True)),
        'ebm-recomputed-attention': dict(training_step=dict(compile=False, attention='recomputed')),
        'ebm-micro-batch': dict(training_step=dict(compile=False, micro_batch=setting.batch // 4)),
        'ebm-low-memory': dict(training_step=dict(compile=False, low_memory=True)),
        'ebm-2-steps': EAGER | dict(num_steps=2),
        'ebm-token-dropping': dict(token_dropping=quarter),
    }


def build_ebm(setting: Setting, options: dict) -> nn.Module:
    """The model of the shipped config, with options."""
    cfg = Config.fromfile(REPOSITORY / 'configs' / f'{setting.config}.py').model
    cfg.update(step_size=1.0, **options)  # dicts are merged
    return MODELS.build(cfg)


def build_patches(setting: Setting, compile: bool) -> nn.Module:
    """The model that restores patches; its energy has two thirds of the backbone's width."""
    grid, width = setting.image_size // setting.patch_size, setting.width * 2 // 3
    size = dict(img_size=setting.image_size, patch_size=setting.patch_size)
    backbone = dict(type='mmebm.PatchSubsetViT', arch=setting.arch, **size)
    head = dict(type='mmebm.PatchEnergyHead', in_channels=setting.width, grid_size=(grid, grid))
    head.update(patch_size=setting.patch_size, embed_dims=width, num_heads=width // 32)
    return MODELS.build(dict(type='mmebm.PatchEBM', backbone=backbone, head=head, training_step=dict(compile=compile)))


def build_supervised(setting: Setting) -> nn.Module:
    """The classifier of mmpretrain on the EBM's backbone."""
    backbone = Config.fromfile(REPOSITORY / 'configs' / f'{setting.config}.py').model.backbone
    head = dict(type='VisionTransformerClsHead', num_classes=1000, in_channels=setting.width)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone | dict(out_type='cls_token'), head=head))


def build_mae(setting: Setting) -> nn.Module:
    """MAE of mmpretrain; below ViT-B its decoder keeps two thirds of the encoder's width."""
    cfg = Config.fromfile(_installed('mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py')).model
    cfg.backbone.update(arch=setting.arch, img_size=setting.image_size, patch_size=setting.patch_size)
    cfg.neck.update(
        num_patches=(setting.image_size // setting.patch_size) ** 2,
        patch_size=setting.patch_size,
        embed_dim=setting.width,
        decoder_embed_dim=setting.width * 2 // 3,
    )
    cfg.head.patch_size = setting.patch_size
    return MODELS.build(cfg)


def build_beit(setting: Setting) -> nn.Module:
    """BEiT of mmpretrain, its tokenizer with random weights: the time is the same."""
    cfg = Config.fromfile(_installed('beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py')).model
    cfg.backbone.update(arch=setting.arch, img_size=setting.image_size, patch_size=setting.patch_size)
    cfg.backbone.drop_path_rate = 0.0  # as in the others
    cfg.head.embed_dims = setting.width
    cfg.target_generator.pop('init_cfg')
    return MODELS.build(cfg)


def build_simmim(setting: Setting) -> nn.Module:
    """SimMIM of mmpretrain, which is a Swin-B at 192 pixels whatever the setting."""
    return MODELS.build(
        Config.fromfile(_installed('simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py')).model
    )


PATCHES = 'ebm-patches'
PEERS = {
    'supervised': build_supervised,
    'mae': build_mae,
    'mae-compiled': build_mae,
    'simmim': build_simmim,
    'beit': build_beit,
}


class Batch(NamedTuple):
    """What any of the methods trains on.

    Attributes:
        clean: (N, 3, H, W).
        corrupted: (N, 3, H, W), three quarters of the patches grey.
        masks: N masks (H / p, W / p), 1 = masked.
    """

    clean: Tensor
    corrupted: Tensor
    masks: Tensor


def make_batch(setting: Setting, size: int, device: str) -> Batch:
    """Normal noise; time does not depend on it."""
    grid = setting.image_size // setting.patch_size
    clean = torch.randn(size, 3, setting.image_size, setting.image_size, device=device)
    order = torch.rand(size, grid * grid, device=device).argsort(dim=1)
    masks = (order >= grid * grid // 4).view(size, grid, grid)
    pixels = masks.repeat_interleave(setting.patch_size, 1).repeat_interleave(setting.patch_size, 2)
    return Batch(clean, clean.masked_fill(pixels.unsqueeze(1), 0.0), masks)


def inputs_of(variant: str, setting: Setting, batch: Batch) -> tuple:
    """Inputs and data samples as the method's model takes them."""
    size, device = len(batch.clean), batch.clean.device
    if variant == PATCHES:
        return ([batch.clean],)
    if variant.startswith('ebm'):
        return ([batch.corrupted, batch.clean],)
    if variant.startswith('mae'):
        return batch.clean, None
    if variant == 'supervised':
        return batch.clean, [DataSample().set_gt_label(i % 1000) for i in range(size)]
    samples = [DataSample() for _ in range(size)]
    if variant == 'beit':
        for sample, mask in zip(samples, batch.masks, strict=True):
            sample.mask = mask
        grid = setting.image_size // setting.patch_size
        return [batch.clean, torch.rand(size, 3, 8 * grid, 8 * grid, device=device)], samples
    for sample in samples:
        sample.mask = (torch.rand(48, 48, device=device) < 0.6).long()
    return torch.randn(size, 3, 192, 192, device=device), samples


def make_step(variant: str, setting: Setting, batch: Batch, may_compile: bool = True) -> Callable[[], None]:
    """A forward and backward pass of the variant; for ``forward``, a forward pass of the EBM's energy."""
    device = batch.clean.device.type
    dtype = AUTOCAST[setting.precision]
    if variant == PATCHES:
        model = build_patches(setting, may_compile)
    elif variant.startswith(('ebm', 'forward')):
        options = ebm_variants(setting).get(variant, {})
        if not may_compile:
            options = options | dict(training_step=options.get('training_step', {}) | dict(compile=False))
        model = build_ebm(setting, options)
    else:
        model = PEERS[variant](setting)
    model = model.to(device).train()
    inputs = inputs_of(variant, setting, batch)
    scale = FP16_LOSS_SCALE if setting.precision == 'fp16' else 1.0
    if variant == 'ebm-eager-sdpa-math':
        operators = partial(SecondOrderOperators, F.scaled_dot_product_attention)
        model.training_step.gradient_fn.keywords['operators'] = operators
    compiled = variant == 'mae-compiled' and may_compile
    loss_of = torch.compile(model.loss, dynamic=False) if compiled else model.loss

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            model.energy(batch.corrupted)

    def step() -> None:
        with (
            torch.autocast(device, dtype=dtype, enabled=dtype is not None),
            sdpa_kernel(SDPBackend.MATH) if variant == 'ebm-eager-sdpa-math' else nullcontext(),
        ):
            losses = loss_of(*inputs)
        (scale * sum(value for name, value in losses.items() if 'loss' in name)).backward()
        model.zero_grad()

    return forward if variant == 'forward' else step


def _installed(name: str) -> str:
    return f'{get_installed_path("mmpretrain")}/.mim/configs/{name}'
