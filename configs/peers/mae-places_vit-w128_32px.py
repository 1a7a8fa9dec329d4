"""MAE whose encoder also reads patches without position embedding and classifies their places.

Paper:    MAE, arXiv 2111.06377; classified places of patches read without position in arXiv 2207.07611 and 2309.03576
Command:  python tools/train.py configs/peers/mae-places_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 246 CPU seconds
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 49.0%, kNN 38.8%, fine-tuned 53.4%
          (docs/results.md)

A quarter of the patches is visible, as in MAE, and a quarter is read without position: the shares and the weight of
positions in ebm-patches_vit-w128_32px.py. As in MAE, the decoder reads the visible
patches alone and predicts all others.
"""

_base_ = './mae_vit-w128_32px.py'

model = dict(
    type='mmebm.PlacesMAE',
    backbone=dict(type='mmebm.PlacesMAEViT', position_drop_ratio=0.25),
    head=dict(type='mmebm.PlacesMAEHead', embed_dims=128, num_patches=64, position_weight=0.3),
)
