"""ResNet-50 pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is SparK's, arXiv 2301.03580, as in mmpretrain
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-resnet50_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmpretrain::spark/benchmarks/resnet50_8xb256-coslr-300e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_resnet50_in1k/epoch_100.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))

data_root = 'data/imagenet'
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
