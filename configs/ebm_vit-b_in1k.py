"""ViT-B/16 on ImageNet-1k, for features: detects and restores shuffled patches, predicts positions and contents.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_vit-b_in1k.py 8
          any other folder of images: add --cfg-options data_root=FOLDER
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

Of 196 patches, 49 are shuffled among themselves, 49 have lost their position, 49 are missing, and 49 are as they were.
Each token's energy is trained as the logit of its patch being shuffled. One gradient step on the sum of energies
restores the shuffled patches and predicts positions and missing contents. Losses, shares and weights are this project's
choice, not the paper's; but for initial weights and the weight of contents, they were found with small ViTs at 32
pixels (docs/ablations.md). To restore whole images: ebm-mix; for an energy of whole images: ebm-mix with
model.nce_weight=0.05.
"""

_base_ = './ebm-mask_vit-b_in1k.py'

patch_size = 16
model = dict(
    # With MAE's initial weights, a ViT-S did not begin to detect shuffled patches within 600 steps (docs/ablations.md).
    backbone=dict(init_cfg=dict(type='mmebm.TiedAttention')),
    head=dict(
        loss=dict(
            type='mmebm.RestorationLoss', kind='l2', region='corrupted', norm_patch_size=patch_size, loss_weight=0.05
        )
    ),
    step_size=10.0,
    token_dropping=dict(patch_size=patch_size, visible=0.5, corrupted=0.25),
    token_nce_weight=1.0,
    position_dropping=dict(ratio=0.25, weight=0.3),
    content_dropping=dict(ratio=0.25, weight=0.3),
    restored_share=0.25,
)

corruption = dict(type='mmebm.PatchShuffle', patch_size=patch_size, share=0.25)
_base_.train_pipeline[3].corruption = corruption
_base_.test_pipeline[3].corruption = dict(**corruption, seed=0)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_evaluator = [*_base_.test_evaluator, dict(type='mmebm.TokenEnergyMetric')]
