"""UPerNet on ADE20K, 512 x 512, from a pretrained ConvNeXt-T.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ade20k/upernet_ebm-convnext-t_ade20k.py 8
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run

All but the backbone is mmseg's. The norms of the first three stages, which pretraining lacks, are the neck.
"""

_base_ = 'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmebm.ConvNeXtStages',
        arch='tiny',
        gap_before_final_norm=False,
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,  # without a checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_convnext-t_in1k/epoch_100.pth', prefix='backbone.'),
    ),
    neck=dict(type='mmebm.StageNorms', in_channels=[96, 192, 384], eps=1e-6),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
