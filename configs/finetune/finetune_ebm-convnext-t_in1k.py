"""ConvNeXt-T pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is SparK's for ConvNeXt V2, arXiv 2301.03580, as in mmpretrain
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-convnext-t_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmpretrain::spark/benchmarks/convnextv2-tiny_8xb256-coslr-300e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_convnext-t_in1k/epoch_100.pth'
model = dict(
    # ConvNeXt V1 with its final norm before pooling, as in pretraining.
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch='tiny',
        gap_before_final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
)

data_root = 'data/imagenet'
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
train_dataloader = dict(batch_size=256)  # inherited as 64, which does not fit the learning rate
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.ProgressHook')]
