"""ViT-B/16 on ImageNet-1k, restoring images of which a generator has replaced tokens.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_in1k.py
          tools/dist_train.sh configs/cim-respix_vit-b_in1k.py 8
          any other folder of images: add --cfg-options data_root=FOLDER
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run

Of the paper are 300 epochs, the kind of networks, tokens drawn from the generator and the restoration of all pixels
(docs/cim.md). Optimiser, batch and schedule are those of mmpretrain's BEiT, with bfloat16. All else, as sizes of
generator and tokenizer, share of masked patches and window, is this project's choice.
"""

_base_ = './ebm-mask_vit-b_in1k.py'

model = dict(
    _delete_=True,
    type='mmebm.CIM',
    backbone=dict(
        type='mmebm.SinCosViT', arch='base', img_size=224, patch_size=16, out_type='featmap', drop_path_rate=0.1
    ),
    head=dict(type='mmebm.ResPixHead', in_channels=768, stride=16),
    tokenizer=dict(
        type='mmebm.FrozenTokenizer',
        model=dict(
            type='mmebm.VQVAE',
            num_embed=8192,
            downsampling=8,
            width=128,
            init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vqvae_in1k/epoch_10.pth'),
        ),
        mean=[-31.875] * 3,  # of the tokenizer's own data preprocessor
        std=[318.75] * 3,
        scale=0.5,  # it reads the image at 112 pixels, for 14 x 14 tokens
    ),
    generator=dict(
        type='mmebm.TokenGenerator',
        backbone=dict(
            type='BEiTPretrainViT',
            arch=dict(embed_dims=384, num_layers=6, num_heads=6, feedforward_channels=1536),
            img_size=224,
            patch_size=16,
        ),
        vocabulary=8192,
    ),
)

# mmebm's LoadImage; by this name mmpretrain's tools find it.
load_image = dict(type='LoadImageFromFile', _scope_='mmebm')
pack = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx'))
train_pipeline = [
    load_image,
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    pack,
]
test_pipeline = [
    load_image,
    dict(type='ResizeEdge', scale=256, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = [dict(type='mmebm.RestorationMetric'), dict(type='mmebm.TokenMetric')]

optim_wrapper = dict(
    constructor='mmebm.ClipGeneratorApart',
    accumulative_counts=1,
    optimizer=dict(lr=1.5e-3, betas=(0.9, 0.999)),
    paramwise_cfg=dict(custom_keys=dict(mask_token=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.0001, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=290,
        eta_min=1e-5,
        by_epoch=True,
        begin=10,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=2048)
custom_hooks = [
    dict(type='mmebm.EpochSeedHook'),
    dict(type='mmebm.NonFiniteLossHook'),
    dict(type='mmebm.ProgressHook'),
    dict(type='mmebm.RestorationProgressHook', interval=10),
]
