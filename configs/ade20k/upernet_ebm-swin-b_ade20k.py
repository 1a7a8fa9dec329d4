"""UPerNet on ADE20K, 512 x 512, from a pretrained Swin-B.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ade20k/upernet_ebm-swin-b_ade20k.py 8
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run

All but the backbone is mmseg's. The norms of the first three stages, which pretraining lacks, are the neck.
"""

_base_ = 'mmseg::swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmebm.SwinStages',
        arch='base',
        img_size=512,
        pad_small_map=True,  # windows of 7 at any image size
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_swin-b_in1k/epoch_100.pth', prefix='backbone.'),
    ),
    neck=dict(type='mmebm.StageNorms', in_channels=[128, 256, 512]),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
