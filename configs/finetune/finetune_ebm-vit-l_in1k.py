"""ViT-L/16 pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is MAE's, arXiv 2111.06377
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-vit-l_in1k.py 8
Hardware: 8 GPUs, 128 images each
Time:     not run
Expect:   not run

This inherits mmpretrain's own MAE fine-tuning; see finetune_ebm-vit-b_in1k.py for what differs.
"""

_base_ = 'mmpretrain::mae/benchmarks/vit-large-p16_8xb128-coslr-50e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_vit-l_in1k/epoch_100.pth'
model = dict(
    backbone=dict(out_type='featmap', final_norm=True, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)

data_root = 'data/imagenet'
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
