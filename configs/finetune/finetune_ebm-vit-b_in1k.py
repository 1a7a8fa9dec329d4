"""ViT-B/16 pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is MAE's, arXiv 2111.06377
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-vit-b_in1k.py 8
          another checkpoint: add --cfg-options model.backbone.init_cfg.checkpoint=FILE
          any folder with train/ and val/, each with one folder per class: add --cfg-options data_root=FOLDER
          model.head.num_classes=N data_preprocessor.num_classes=N; with fewer than 5 classes also val_evaluator.topk=1
Hardware: 8 GPUs, 128 images each
Time:     not run
Expect:   not run

This inherits mmpretrain's own MAE fine-tuning. Only the features differ: MAE puts a new norm after the mean token; here
the features are the mean of the normalised tokens, so that the final norm is the pretrained one.
"""

_base_ = 'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # for mmpretrain's own browse_dataset

checkpoint = 'work_dirs/ebm_vit-b_in1k/epoch_100.pth'
model = dict(
    backbone=dict(out_type='featmap', final_norm=True, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)

data_root = 'data/imagenet'
# The classes are the folders found, whatever their number.
_base_.train_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.val_dataloader.dataset.type = 'mmebm.LabelledFolder'
_base_.test_dataloader.dataset.type = 'mmebm.LabelledFolder'
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
