"""A small ViT on a folder of hundreds to thousands of your own images, without labels, at 64 pixels.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/ebm_vit-t_folder.py --cfg-options data_root=FOLDER
Hardware: 2 CPU cores
Time:     320 photographs: 15.5 minutes, 12.5 of them CPU time of 1 thread, on a busy 2-core AMD EPYC
Expect:   on 80 others after that: PSNR of images with shuffled patches 16.1 -> 18.1 dB, AUROC of tokens' energies as a
          score of a patch being out of place 0.88 (one seed; docs/ablations.md)

A quarter of each image's patches are shuffled. The energies of tokens tell which, and a step down the gradient of their
sum puts the contents right. An eighth have lost their position, and an eighth are missing: both are restored, too.
Losses, shares and weights are this project's choice, not the paper's. Larger folders and networks were not tried.
"""

_base_ = './ebm_vit-b_in1k.py'

patch_size = 8
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=patch_size,
    ),
    # Pixels of the whole image, so that what is right stays so.
    head=dict(in_channels=128, loss=dict(_delete_=True, type='mmebm.RestorationLoss', kind='l2', loss_weight=2.0)),
    token_dropping=dict(patch_size=patch_size, visible=0.625),
    token_nce_weight=2.0,
    position_dropping=dict(ratio=0.125),
    content_dropping=dict(ratio=0.125, weight=1.0),
    restored_share=0.5,
    training_step=dict(compile=False),  # so that it starts at once
)

# Subfolders, at any depth, are searched too; a broken file is named in the log and skipped.
data_root = 'data/images'
test_data_root = 'data/test_images'  # for tools/test.py
corruption = dict(type='mmebm.PatchShuffle', patch_size=patch_size, share=0.25)
_base_.train_pipeline[1].scale = 64
_base_.train_pipeline[3].corruption = corruption
_base_.test_pipeline[1].scale = 73
_base_.test_pipeline[2].crop_size = 64
_base_.test_pipeline[3].corruption = dict(**corruption, seed=0)
# On two cores, workers compete with the training; beside a GPU set 4 or more.
train_dataloader = dict(batch_size=16, num_workers=0, dataset=dict(data_root=data_root, pipeline=_base_.train_pipeline))
test_dataloader = dict(num_workers=0, dataset=dict(data_root=test_data_root, pipeline=_base_.test_pipeline))

optim_wrapper = dict(accumulative_counts=1, optimizer=dict(lr=1.5e-3))
auto_scale_lr = dict(base_batch_size=16)
_base_.param_scheduler[0].end = _base_.param_scheduler[1].begin = 15
_base_.param_scheduler[1].update(T_max=135, end=150)
train_cfg = dict(max_epochs=150)
default_hooks = dict(checkpoint=dict(interval=10))
