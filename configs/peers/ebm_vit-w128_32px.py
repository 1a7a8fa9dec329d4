"""A small ViT, for features, detects and restores shuffled patches, and predicts positions and missing contents.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 536 CPU seconds, compiling and data loading included
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 48.9%, kNN 37.4%, fine-tuned 54.4%
          (docs/results.md)

Of 64 patches, 16 are shuffled among themselves, 16 have lost their position, 16 are missing, and 16 are as they were.
Losses, shares and weights are this project's choice, not the paper's: docs/ablations.md.
"""

_base_ = './ebm-nce_vit-w128_32px.py'

model = dict(
    head=dict(
        loss=dict(type='mmebm.RestorationLoss', kind='l2', region='corrupted', norm_patch_size=4, loss_weight=0.05)
    ),
    step_size=10.0,
    token_dropping=dict(patch_size=4, visible=0.5, corrupted=0.25),
    nce_weight=0.0,
    token_nce_weight=1.0,
    position_dropping=dict(ratio=0.25, weight=0.3),
    content_dropping=dict(ratio=0.25, weight=1.0),
    restored_share=0.25,
)
# Natural patches everywhere; mixed with other corruptions, the features are worse. For an energy of images: ebm-nce.
_base_.train_dataloader.dataset.pipeline[-2].corruption = dict(type='mmebm.PatchShuffle', patch_size=4, share=0.25)
