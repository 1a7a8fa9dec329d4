"""ResNet-50 pretrained by restoration, fine-tuned on 10% of ImageNet-1k's labels.

Paper:    the images are SimCLR's, arXiv 2002.05709; the recipe is SparK's for all labels, arXiv 2301.03580
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-resnet50_in1k-10pct.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run

The list of images is made as in finetune_ebm-vit-b_in1k-1pct.py, from SimCLR's 10percent.txt.
"""

_base_ = './finetune_ebm-resnet50_in1k.py'

train_dataloader = dict(dataset=dict(ann_file='meta/train_10pct.txt'))
