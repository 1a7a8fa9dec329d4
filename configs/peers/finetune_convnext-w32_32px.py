"""Fine-tuning of a small ConvNeXt at 32 pixels, from any method of configs/peers or from random weights.

Paper:    the recipe is MAE's, arXiv 2111.06377, with weaker settings for a small network
Command:  python tools/train.py configs/peers/finetune_convnext-w32_32px.py --cfg-options data_root=FOLDER
          model.backbone.init_cfg.checkpoint=FILE; from random weights: model.backbone.init_cfg=None
          FOLDER holds train/ and test/, each with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './finetune_vit-w128_32px.py'

checkpoint = 'work_dirs/ebm_convnext-w32_32px/epoch_30.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        **_base_.shared.convnext,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    head=dict(in_channels=256),
)
