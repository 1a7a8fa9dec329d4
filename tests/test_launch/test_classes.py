import pytest
from mmengine.config import Config

from mmebm.launch.checks.classes import check_classes

FOLDERS = dict(train=['cat', 'dog', 'owl'], val=['cat', 'owl', 'yak'])


@pytest.fixture
def root(tmp_path):
    for split, names in FOLDERS.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
    return tmp_path


def config(train, val):
    return Config(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val)))


def check(cfg):
    check_classes(cfg, ['train_dataloader', 'val_dataloader'])


def imagenet(root, split, **options):
    return dict(type='ImageNet', data_root=str(root), split=split, metainfo=dict(classes=None)) | options


def image_folder(root, split, with_label=True):
    return dict(type='mmebm.ImageFolder', data_root=str(root), data_prefix=split, with_label=with_label)


def custom(root, split):
    return dict(type='CustomDataset', data_root=str(root), data_prefix=split)  # with labels by default


def prefixed_folder(root, split):
    return image_folder(root, dict(img_path=split))


@pytest.mark.parametrize('dataset', [imagenet, image_folder, prefixed_folder, custom])
def test_a_class_that_is_missing_is_named(root, dataset):
    with pytest.raises(ValueError, match=r'/train and .*/val must have the same folders.* alone: dog, yak$'):
        check(config(dataset(root, 'train'), dataset(root, 'val')))
    (root / 'val/yak').rename(root / 'val/dog')
    check(config(dataset(root, 'train'), dataset(root, 'val')))


def test_labels_that_folders_do_not_number_are_not_looked_at(root):
    check(config(image_folder(root, 'train', with_label=False), image_folder(root, 'val')))
    check(config(imagenet(root, 'train', ann_file='part.txt'), imagenet(root, 'val')))
    check(config(imagenet(root, 'train'), imagenet(root, 'val', metainfo=dict(classes=['cat', 'owl', 'yak']))))
    check(config(imagenet(root, 'train'), imagenet(root / 'elsewhere', 'val')))
    coco = dict(type='CocoDataset', data_root=str(root), data_prefix=dict(img='train'), metainfo=None)
    check(config(coco, image_folder(root, 'val')))
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').touch()  # which mmpretrain reads labels from
    check(config(imagenet(root, 'train'), imagenet(root, 'val')))
    check_classes(config(image_folder(root, 'train'), image_folder(root, 'val')), ['train_dataloader'])  # not validated
