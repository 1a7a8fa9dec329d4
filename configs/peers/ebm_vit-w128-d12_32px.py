"""A small ViT of 12 blocks detects and restores shuffled patches, and predicts positions and missing contents.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 1,085 CPU seconds (seed 100)
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 48.8%, kNN 34.7%, fine-tuned 55.5%
          (docs/results.md)
"""

_base_ = './ebm_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
