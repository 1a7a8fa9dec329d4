"""Swin-B pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is SimMIM's, arXiv 2111.09886
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-swin-b_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmpretrain::simmim/benchmarks/swin-base-w7_8xb256-coslr-100e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_swin-b_in1k/epoch_100.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))

data_root = 'data/imagenet'
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
# If inherited, they would get mmpretrain's scope as an argument.
_base_.train_dataloader.collate_fn = dict(type='default_collate')
_base_.val_dataloader.collate_fn = dict(type='default_collate')
_base_.test_dataloader.collate_fn = dict(type='default_collate')
auto_scale_lr = dict(base_batch_size=2048)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
