"""MAE with four masks per image: the counterpart of ebm-patches-4views_vit-w128_32px.py.

Paper:    MAE, arXiv 2111.06377; several masks per image reduce data loading in arXiv 2205.09113
Command:  python tools/train.py configs/peers/mae-4views_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     four times that of mae_vit-w128_32px.py
Expect:   after 16 epochs, on CIFAR-10, learning rate 4e-3, one seed: linear probe 54.0%, kNN 38.6%, fine-tuned 58.1%,
          without clipping (docs/results.md)
"""

_base_ = './mae_vit-w128_32px.py'

model = dict(type='mmebm.RepeatedMAE', views=4)
