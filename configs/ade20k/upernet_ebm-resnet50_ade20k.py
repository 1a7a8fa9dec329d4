"""UPerNet on ADE20K, 512 x 512, from a pretrained ResNet-50.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ade20k/upernet_ebm-resnet50_ade20k.py 4
Hardware: 4 GPUs, 4 images each
Time:     not run
Expect:   not run

All but the backbone is mmseg's; mmseg's own ResNet has another stem (V1c).
"""

_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_resnet50_in1k/epoch_100.pth', prefix='backbone.'),
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
