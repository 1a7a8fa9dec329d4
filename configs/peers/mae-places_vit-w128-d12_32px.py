"""MAE with classified places and a small ViT of 12 blocks at 32 pixels.

Paper:    MAE, arXiv 2111.06377; classified places of patches read without position in arXiv 2207.07611 and 2309.03576
Command:  python tools/train.py configs/peers/mae-places_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 372 CPU seconds
Expect:   after that, on CIFAR-10, learning rate 2e-3, one seed: linear probe 46.5%, kNN 35.2%, fine-tuned 51.5%
          (docs/results.md)
"""

_base_ = './mae-places_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
