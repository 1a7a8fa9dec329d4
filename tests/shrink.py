"""Makes a shipped config small enough for one training step on one core, without changing what it is made of."""

from mmengine.config import Config

TINY_BACKBONES = {
    'VisionTransformer': dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)),
    'SwinTransformer': dict(arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]), pad_small_map=True),
    'ConvNeXt': dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 16, 32])),
    'ResNet': dict(base_channels=8, stem_channels=8),
}
TINY_WIDTHS = {'VisionTransformer': 32, 'SwinTransformer': 64, 'ConvNeXt': 32, 'ResNet': 256}
for name in ('mmebm.SinCosViT', 'mmebm.PatchSubsetViT'):
    TINY_BACKBONES[name] = TINY_BACKBONES['VisionTransformer']
    TINY_WIDTHS[name] = TINY_WIDTHS['VisionTransformer']


def shrink(cfg: Config, work_dir: str, image_size: int = 64) -> Config:
    """Tiny backbone and images, two images of Shapes, one step, no files but those in ``work_dir``."""
    cfg.model.training_step = dict(compile=False)  # which takes a minute and more; the gradient parity tests cover it
    backbone = cfg.model.backbone
    backbone.update(TINY_BACKBONES[backbone.type])
    if 'img_size' in backbone:
        image_size = backbone.img_size = min(image_size, backbone.img_size)
    cfg.model.head.in_channels = TINY_WIDTHS[backbone.type]
    if 'grid_size' in cfg.model.head:
        cfg.model.head.update(grid_size=[image_size // backbone.patch_size] * 2, embed_dims=32, num_heads=2)
    pipeline = [step for step in cfg.train_dataloader.dataset.pipeline if 'LoadImage' not in step['type']]
    for step in pipeline:
        if step['type'] == 'RandomResizedCrop':
            step['scale'] = image_size
    cfg.train_dataloader.update(batch_size=2, num_workers=0)
    cfg.train_dataloader.dataset = dict(type='mmebm.Shapes', size=2, image_size=image_size, pipeline=pipeline)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer,
                             paramwise_cfg=cfg.optim_wrapper.paramwise_cfg)  # fmt: skip
    cfg.param_scheduler = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmebm.FrozenFeatureHook']
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    cfg.update(test_cfg=None, test_dataloader=None, test_evaluator=None)
    cfg.update(resume=False, work_dir=work_dir, experiment_name=work_dir.replace('/', '_'))
    return cfg
