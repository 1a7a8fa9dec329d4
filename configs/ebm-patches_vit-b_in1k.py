"""ViT-B/16 on ImageNet-1k, restoring contents of masked and positions of position-dropped patches.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384, whose energy is of whole
          images; this one is of masked contents and dropped positions, see docs/results.md
Command:  tools/dist_train.sh configs/ebm-patches_vit-b_in1k.py 8
Hardware: 8 GPUs, 512 images each
Time:     not run
Expect:   not run
"""

_base_ = './ebm-mask_vit-b_in1k.py'

model = dict(
    _delete_=True,
    type='mmebm.PatchEBM',
    backbone=dict(type='mmebm.PatchSubsetViT', arch='base', img_size=224, patch_size=16, out_type='raw'),
    head=dict(
        type='mmebm.PatchEnergyHead', in_channels=768, grid_size=(14, 14), patch_size=16, embed_dims=512, num_heads=16
    ),
    training_step=dict(compile=True),
)

# Patches are split on the GPU, so only images are loaded.
pack = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx'))
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=[*_base_.train_pipeline[:-2], pack]))
test_dataloader = dict(dataset=dict(pipeline=[*_base_.test_pipeline[:-2], pack]))
optim_wrapper = dict(accumulative_counts=1)
