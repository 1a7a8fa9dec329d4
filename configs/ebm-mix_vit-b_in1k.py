"""ViT-B/16 on ImageNet-1k, restoring images corrupted in one of five ways, drawn per image.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm-mix_vit-b_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm-mask_vit-b_in1k.py'

corruptions = [
    dict(type='mmebm.PatchMask', ratio=0.6, patch_size=16, fill=[103.53, 116.28, 123.675]),
    dict(type='mmebm.PatchShuffle', patch_size=16, share=0.5),
    dict(type='mmebm.Downsample', factor=4, interpolation='bicubic'),
    dict(type='mmebm.GaussianNoise', sigma=(25.0, 75.0)),
    dict(type='mmebm.Grayscale'),
]
_base_.train_dataloader.dataset.pipeline[-2].corruption = dict(
    type='RandomChoice', transforms=[[corruption] for corruption in corruptions]
)

# Every test image with each of the five corruptions.
test_pipeline = _base_.test_dataloader.dataset.pipeline
test_dataset = _base_.test_dataloader.dataset
_base_.test_dataloader.dataset = dict(
    type='mmebm.ConcatDataset',
    pipeline=[*test_pipeline[:-2], test_pipeline[-1]],  # of other images, for mmpretrain's inferencers
    datasets=[
        dict(
            **{key: value for key, value in test_dataset.items() if key != 'pipeline'},
            pipeline=[
                *test_pipeline[:-2],
                dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0)),
                test_pipeline[-1],
            ],
        )
        for corruption in corruptions
    ],
)
