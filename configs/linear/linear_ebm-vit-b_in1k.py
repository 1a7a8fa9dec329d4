"""Linear probe of ViT-B/16, pretrained by restoration, on ImageNet-1k.

Paper:    the recipe is MAE's, arXiv 2111.06377
Command:  tools/dist_train.sh configs/linear/linear_ebm-vit-b_in1k.py 8
          another checkpoint: add --cfg-options model.backbone.init_cfg.checkpoint=FILE
          any folder with train/ and val/, each with one folder per class: add --cfg-options data_root=FOLDER
          model.head.num_classes=N; with fewer than 5 classes also val_evaluator.topk=1
Hardware: 8 GPUs, 2048 images each
Time:     not run
Expect:   not run

This inherits mmpretrain's own MAE probe: batch normalisation without weights before the linear layer, LARS, 90 epochs.
It probes the mean of the patch tokens, as mmebm.FrozenFeatureHook does, instead of the class token.
"""

_base_ = 'mmpretrain::mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_vit-b_in1k/epoch_100.pth'
model = dict(
    backbone=dict(out_type='featmap', init_cfg=dict(checkpoint=checkpoint)),
    neck=[dict(type='GlobalAveragePooling'), dict(type='ClsBatchNormNeck', input_features=768)],
)

data_root = 'data/imagenet'
# The classes are the folders found, whatever their number.
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
auto_scale_lr = dict(base_batch_size=16384)  # inherited as 1024, which does not fit the learning rate
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
