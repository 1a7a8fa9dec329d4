"""Missing contents and lost positions found in natural images; shuffled patches restored in a few: a cheap step.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm-fast_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 615 CPU seconds of a busy machine, compiling and data loading included
Expect:   after that, at learning rate 2e-3, on CIFAR-10, cross-validated on the training images: linear probe 49.2%,
          kNN 38.0% (one seed, docs/ablations.md)

Of 64 patches, 16 have lost their position, 16 are missing, 16 are as they were, and 16 are not used. One image in eight
has 16 shuffled patches, of which 8 are read. One image in sixteen is differentiated twice. Losses, shares and weights
are this project's choice, not the paper's: docs/ablations.md.
"""

_base_ = './ebm_vit-w128_32px.py'

model = dict(
    # The restoration loss is a mean over the few images that are restored, so its gradient is the noisier.
    head=dict(loss=dict(loss_weight=0.005)),
    token_dropping=dict(patch_size=4, visible=0.375, corrupted=0.125),
    token_nce_weight=0.0,
    restored_share=0.0625,
)
_base_.train_dataloader.dataset.pipeline[-2].corruption = dict(
    type='RandomApply', transforms=[dict(type='mmebm.PatchShuffle', patch_size=4, share=0.25)], prob=0.125
)
