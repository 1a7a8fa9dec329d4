import pytest
from hf_files import table, write_parquet
from mmengine.config import Config

from mmebm.config_files import find_config
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


def labelled(root, split, **options):
    return dict(type='mmebm.LabelledFolder', data_root=str(root), split=split) | options


def custom(root, split):
    return dict(type='CustomDataset', data_root=str(root), data_prefix=split)  # with labels by default


def prefixed_folder(root, split):
    return image_folder(root, dict(img_path=split))


@pytest.mark.parametrize('dataset', [imagenet, image_folder, prefixed_folder, labelled, custom])
def test_a_class_that_is_missing_is_named(root, dataset):
    with pytest.raises(ValueError, match=r'/train and .*/val must have the same folders.* alone: dog, yak$'):
        check(config(dataset(root, 'train'), dataset(root, 'val')))
    (root / 'val/yak').rename(root / 'val/dog')
    check(config(dataset(root, 'train'), dataset(root, 'val')))


def test_labels_that_folders_do_not_number_are_not_looked_at(root):
    check(config(image_folder(root, 'train', with_label=False), image_folder(root, 'val')))
    check(config(imagenet(root, 'train', ann_file='part.txt'), imagenet(root, 'val')))
    check(config(imagenet(root, 'train'), imagenet(root / 'elsewhere', 'val')))
    coco = dict(type='CocoDataset', data_root=str(root), data_prefix=dict(img='train'), metainfo=None)
    check(config(coco, image_folder(root, 'val')))
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').touch()  # which mmpretrain reads labels from
    check(config(imagenet(root, 'train'), imagenet(root, 'val')))
    check_classes(config(image_folder(root, 'train'), image_folder(root, 'val')), ['train_dataloader'])  # not validated


def test_names_in_the_config_do_not_hide_other_folders(root):
    named = labelled(root, 'val', metainfo=dict(classes=['c', 'o', 'y']))
    with pytest.raises(ValueError, match='must have the same folders'):
        check(config(labelled(root, 'train'), named))


def test_data_sets_in_wrappers_are_compared(root):
    both = dict(type='ConcatDataset', datasets=[labelled(root, 'train'), labelled(root, 'val')])
    with pytest.raises(ValueError, match='must have the same folders'):
        check(config(both, labelled(root, 'train')))
    repeated = dict(type='RepeatDataset', times=2, dataset=labelled(root, 'train'))
    with pytest.raises(ValueError, match='must have the same folders'):
        check(config(repeated, labelled(root, 'val')))


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX', '@eaDir', '.thumbs'])
def test_hidden_folders_are_no_classes(root, name):
    (root / 'train' / name).mkdir()
    train = (labelled(root, 'train'), image_folder(root, 'train'))
    for dataset in train:
        check(config(dataset, labelled(root, 'train')))
    for dataset in (imagenet(root, 'train'), custom(root, 'train')):
        with pytest.raises(ValueError, match=f'/train holds folders that would count as classes: {name}; remove them'):
            check(config(dataset, labelled(root, 'train')))


def test_names_in_another_order_than_the_folders(root):
    named = labelled(root, 'train', metainfo=dict(classes=['owl', 'cat', 'dog']))
    message = r'/train and train_.*metainfo.classes name the same .* order.*: cat, dog, owl, and owl, cat'
    with pytest.raises(ValueError, match=message):
        check(config(named, labelled(root, 'train')))


def test_folders_and_a_list_that_number_the_same_classes_differently(root):
    notes = dict(image=dict(_type='Image'), label=dict(names=['dog', 'cat', 'owl'], _type='ClassLabel'))
    write_parquet(root / 'hub/val.parquet', table([0, 1], features=notes))
    hub = dict(type='mmebm.HFImages', data_root=str(root / 'hub'), with_label=True)
    cfg = config(image_folder(root, 'train'), hub)
    cfg.model = dict(head=dict(num_classes=3))
    with pytest.raises(ValueError, match=r'/train and .*/hub name the same .*: cat, dog, owl, and dog, cat, owl\.'):
        check(cfg)
    cfg.train_dataloader.dataset.with_label = False
    check(cfg)


def test_labels_of_files_that_name_no_classes(root):
    write_parquet(root / 'hub/train.parquet', table([0, 1, 2], labels=[0, 9, 1], features=None))
    cfg = config(dict(type='mmebm.HFImages', data_root=str(root / 'hub'), with_label=True), None)
    check(cfg)
    cfg.model = dict(head=dict(num_classes=2))
    with pytest.raises(ValueError, match=r'/hub has labels up to 9, but model.head.num_classes is 2: .*classes=10'):
        check(cfg)


def test_lists_of_classes_in_another_order():
    coco = [dict(type='CocoDataset', metainfo=dict(classes=names)) for names in (('cat', 'dog'), ('dog', 'cat'))]
    cfg = config(*coco)
    check(cfg)  # a pretraining reads no labels
    cfg.model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))
    message = r'train_.*classes and val_.*classes must name .* the same order, .* not cat, dog and dog, cat$'
    with pytest.raises(ValueError, match=message):
        check(cfg)


@pytest.mark.parametrize('number', [10, 2])
def test_another_number_of_classes_than_folders(root, number):
    cfg = config(labelled(root, 'train'), None)
    cfg.model = dict(head=dict(num_classes=number), train_cfg=dict(augments=[dict(type='Mixup')]))
    cfg.data_preprocessor = dict(num_classes=1000)
    message = (
        rf'/train has 3 classes \(cat, dog, owl\), but model.head.num_classes is {number}: set --cfg-options '
        'model.head.num_classes=3 data_preprocessor.num_classes=3$'
    )
    with pytest.raises(ValueError, match=message):
        check(cfg)
    cfg.model.head.num_classes = 3
    with pytest.raises(ValueError, match='but data_preprocessor.num_classes is 1000: set'):
        check(cfg)
    cfg.model.train_cfg = None  # nothing is mixed, so that the preprocessor does not read it
    check(cfg)


@pytest.mark.parametrize(
    ('section', 'dataset', 'head'),
    [
        ('train_dataloader', dict(type='CIFAR10', data_root='x'), dict(head=dict(num_classes=100))),
        ('test_dataloader', dict(type='mmebm.Shapes'), dict(head=dict(num_classes=11))),
        (
            'train_dataloader',
            dict(type='CocoDataset', metainfo=dict(classes=['a'] * 10)),
            dict(roi_head=dict(mask_head=dict(num_classes=80))),
        ),
        (
            'val_dataloader',
            dict(type='BaseSegDataset', metainfo=dict(classes=['a'] * 10)),
            dict(auxiliary_head=[dict(), dict(num_classes=150)]),
        ),
    ],
)
def test_class_counts_of_other_data_and_heads(section, dataset, head):
    (cfg := Config({section: dict(dataset=dataset)})).model = head
    with pytest.raises(ValueError, match=r'has 10 classes \(.*num_classes is \d+: set --cfg-options .*classes=10$'):
        check_classes(cfg, [section])


def test_accuracy_of_more_classes_than_there_are(root):
    cfg = config(labelled(root, 'train'), labelled(root, 'train'))
    cfg.model = dict(head=dict(num_classes=3))
    cfg.test_evaluator = dict(type='Accuracy', topk=(1, 5))  # not used here
    cfg.val_evaluator = [dict(type='mmpretrain.Accuracy', topk=(1, 5))]
    with pytest.raises(ValueError, match=r'val_evaluator.0.topk asks for .* first 5 .* has 3 .*val_evaluator.0.topk=1'):
        check(cfg)
    cfg.val_evaluator[0].topk = 3
    check(cfg)


def test_lists_of_labels(root):
    cfg = config(labelled(root, 'train', ann_file='part.txt'), labelled(root, 'train'))
    cfg.model = dict(head=dict(num_classes=3))
    (root / 'part.txt').write_text('cat/a b.jpg 0\ndog/1.jpg 3\n')
    with pytest.raises(ValueError, match=r'part.txt has labels up to 3, but model.head.num_classes is 3: .*classes=4'):
        check(cfg)
    (root / 'part.txt').write_text('cat/1.jpg 0\ndog/1.jpg\n')
    with pytest.raises(ValueError, match=r"part.txt: line 2 must be a path, a blank and a label, not 'dog/1.jpg'"):
        check(cfg)
    (root / 'part.txt').write_text('cat/1.jpg 0\n')  # not all classes
    check(cfg)


@pytest.mark.parametrize('name', ['finetune_ebm-vit-b_in1k', 'linear_ebm-vit-b_in1k', 'finetune_ebm-vit-t_shapes'])
def test_shipped_configs_say_what_other_folders_need(root, name):
    cfg = Config.fromfile(find_config(name))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root=str(root), data_prefix='train')
    with pytest.raises(ValueError, match=r'3 classes \(cat, dog, owl\), .* set --cfg-options model.head.num_classes=3'):
        check(cfg)


@pytest.mark.parametrize('name', ['upernet_ebm-vit-b_ade20k', 'mask-rcnn_ebm-vit-b_coco', 'mask-rcnn_ebm-vit-t_shapes'])
def test_shipped_configs_with_labels_of_their_own_pass(name):
    pytest.importorskip('mmseg' if 'ade20k' in name else 'mmdet')
    cfg = Config.fromfile(find_config(name))
    check(cfg)
