"""ViT-Ti/16 on a folder of your own images, without labels, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/ebm_vit-t_folder.py --cfg-options data_root=FOLDER
Hardware: 1 GPU
Time:     not run
Expect:   not run
"""

_base_ = './ebm_vit-b_in1k.py'

model = dict(backbone=dict(arch='deit-tiny'), head=dict(in_channels=192))

# Subfolders, at any depth, are searched too; a broken file is named in the log and skipped.
data_root = 'data/images'
test_data_root = 'data/test_images'  # for tools/test.py
train_dataloader = dict(num_workers=4, dataset=dict(data_root=data_root))
test_dataloader = dict(num_workers=4, dataset=dict(data_root=test_data_root))

optim_wrapper = dict(accumulative_counts=1, optimizer=dict(lr=1.5e-4 * 256 / 256))
auto_scale_lr = dict(base_batch_size=256)
