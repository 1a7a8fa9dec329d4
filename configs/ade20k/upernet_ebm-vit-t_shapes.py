"""UPerNet on the embedded data set, 64 x 64, from a small ViT: `upernet_ebm-vit-b_ade20k.py` in minutes on two cores.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/ebm-patches_vit-t_shapes-64px.py
          python tools/make_shapes.py data/shapes_ade20k --layout ade20k --image-size 64 --train 1000 --val 1000
          python tools/train.py configs/ade20k/upernet_ebm-vit-t_shapes.py
          from random weights: add --cfg-options model.backbone.init_cfg=None
Hardware: 2 CPU cores
Time:     3 minutes on one core
Expect:   see benchmarks/results/downstream.json
"""

_base_ = './upernet_ebm-vit-b_ade20k.py'

data_root = 'data/shapes_ade20k'
classes = ('arrow', 'crescent', 'cross', 'disc', 'flower', 'heart', 'ring', 'square', 'star', 'triangle')

model = dict(
    data_preprocessor=dict(size=(64, 64), mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/ebm-patches_vit-t_shapes-64px/epoch_8.pth'),
    ),
    neck=dict(embed_dim=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=64, num_classes=10),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=10),
    test_cfg=dict(mode='whole'),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (256, 64)
train_pipeline[3].crop_size = (64, 64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (256, 64)
# mmseg's ADE20K data set supports only ADE20K's classes; this one differs in defaults only by reduce_zero_label.
dataset = dict(type='BaseSegDataset', data_root=data_root, metainfo=dict(classes=classes), reduce_zero_label=True)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, batch_size=16, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(**loader, batch_size=50, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 500
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor=_base_.optim_wrapper.constructor,
    paramwise_cfg=dict(_base_.optim_wrapper.paramwise_cfg, layer_decay_rate=0.9),  # so that random weights can learn
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
randomness = dict(seed=0)
