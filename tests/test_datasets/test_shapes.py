import random

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose, ConcatDataset
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner import Runner
from sklearn.linear_model import LogisticRegression

from mmebm.datasets import Shapes

CLASSES = Shapes.METAINFO['classes']


def images(dataset):
    return np.stack([dataset[i]['img'] for i in range(len(dataset))])


def test_what_a_pipeline_receives():
    results = Shapes(size=12, image_size=40, split='val')[11]
    assert results['img'].shape == (40, 40, 3) and results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (40, 40)
    assert (results['gt_label'], results['sample_idx'], results['subset']) == (1, 11, 'val')


def test_an_image_depends_on_its_index_alone():
    np.random.seed(1)
    random.seed(1)
    forwards = images(Shapes(size=20))
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    random.seed(2)
    longer = Shapes(size=1000)
    backwards = np.stack([longer[i]['img'] for i in reversed(range(20))])[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    np.testing.assert_array_equal(longer.draw(7).img, forwards[7])

    np.random.seed(1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # drawing took no global random number


@pytest.mark.parametrize('other', [dict(split='val'), dict(seed=1)])
def test_splits_and_seeds_share_no_image(other):
    here, there = images(Shapes(size=100)), images(Shapes(size=100, **other))
    distances = np.abs(here[:, None, ::4, ::4].astype(int) - there[None, :, ::4, ::4]).mean((2, 3, 4))
    assert distances.min() > 3


def test_neighbouring_images_differ():
    pictures = images(Shapes(size=200)).astype(int)
    assert np.abs(pictures[1:] - pictures[:-1]).mean((1, 2, 3)).min() > 10


def test_classes_are_balanced_and_sorted():
    dataset = Shapes(size=40)
    np.testing.assert_array_equal(np.bincount(dataset.get_gt_labels()), np.full(len(CLASSES), 4))
    np.testing.assert_array_equal(dataset.get_gt_labels(), [dataset[i]['gt_label'] for i in range(40)])
    assert dataset.get_cat_ids(13) == [3]
    assert list(dataset.metainfo['classes']) == sorted(CLASSES)


@pytest.mark.parametrize('image_size', [8, 32, 96])
def test_annotations_agree(image_size):
    dataset = Shapes(size=150, image_size=image_size)
    for i in range(len(dataset)):
        picture = dataset.draw(i)
        main = picture.instances[-1]
        assert main.label == picture.gt_label == i % len(CLASSES)
        assert main.mask.sum() == max(instance.mask.sum() for instance in picture.instances)
        assert main.mask.mean() > 0.02
        seg_map = np.zeros((image_size, image_size), int)
        for instance in picture.instances:
            assert (seg_map[instance.mask] == 0).all()  # visible parts do not overlap
            seg_map[instance.mask] = instance.label + 1
            ys, xs = np.nonzero(instance.mask)
            assert instance.bbox == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        np.testing.assert_array_equal(picture.gt_seg_map, seg_map)
        assert all(instance.label != main.label for instance in picture.instances[:-1])


def test_main_object_has_the_promised_size():
    dataset = Shapes(size=100, image_size=64)
    for i in range(100):
        x1, y1, x2, y2 = dataset.draw(i).instances[-1].bbox
        assert 0.25 < max(x2 - x1, y2 - y1) / 64 < 0.76


def test_every_class_also_occurs_as_a_small_object():
    dataset = Shapes(size=150)
    counts = [len(dataset.draw(i).instances) for i in range(150)]
    labels = {instance.label for i in range(150) for instance in dataset.draw(i).instances[:-1]}
    assert set(counts) == {1, 2, 3}
    assert labels == set(range(len(CLASSES)))


def test_resolutions_show_the_same_picture():
    small, large = Shapes(size=60), Shapes(size=60, image_size=64)
    for i in range(60):
        reduced = cv2.resize(large[i]['img'], (32, 32), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(reduced - small[i]['img']).mean() < 2.5  # different pictures: above 10
        same = (
            cv2.resize(large.draw(i).gt_seg_map, (32, 32), interpolation=cv2.INTER_NEAREST) == small.draw(i).gt_seg_map
        )
        assert same.mean() > 0.95


def test_color_does_not_give_the_class_away():
    train, val = Shapes(size=600), Shapes(size=300, split='val')
    mean_color = [images(dataset).mean((1, 2)) / 255 for dataset in (train, val)]
    probe = LogisticRegression(max_iter=500).fit(mean_color[0], train.get_gt_labels())
    assert probe.score(mean_color[1], val.get_gt_labels()) < 0.3


def test_subsets_keep_their_images():
    dataset = Shapes(size=30, indices=[4, 25])
    np.testing.assert_array_equal(dataset[1]['img'], Shapes(size=30)[25]['img'])
    assert (len(dataset), dataset[1]['sample_idx'], dataset[1]['gt_label']) == (2, 1, 5)


@pytest.fixture
def config():
    # PackInputs is found through mmpretrain's scope, Invert through mmebm's
    return dict(type='mmebm.Shapes', size=6, pipeline=[dict(type='mmebm.InvertForTest'), dict(type='PackInputs')])


@pytest.fixture(autouse=True)
def invert():
    class InvertForTest:
        def __call__(self, results):
            return dict(results, img=255 - results['img'])

    from mmebm.registry import TRANSFORMS as OURS

    OURS.register_module(module=InvertForTest, force=True)
    assert isinstance(TRANSFORMS.build(dict(type='mmebm.InvertForTest')), InvertForTest)
    yield
    del OURS._module_dict['InvertForTest']


def test_pipeline_from_configs(config):
    dataset = DATASETS.build(config)
    assert isinstance(dataset.pipeline, Compose)
    packed = dataset[2]
    np.testing.assert_array_equal(packed['inputs'].permute(1, 2, 0), 255 - Shapes(size=6).draw(2).img)
    assert packed['data_samples'].gt_label.tolist() == [2]
    assert packed['data_samples'].sample_idx == 2


@pytest.mark.parametrize('num_workers', [0, 1])
def test_runner_loads_a_concatenation(config, num_workers):
    concat = dict(type='ConcatDataset', datasets=[config, dict(config, split='val')])
    loader = Runner.build_dataloader(
        dict(
            dataset=concat,
            batch_size=4,
            num_workers=num_workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )
    )
    assert isinstance(loader.dataset, ConcatDataset)
    assert loader.dataset.metainfo['classes'] == CLASSES
    batches = list(loader)
    assert [tuple(batch['inputs'].shape) for batch in batches] == [(4, 3, 32, 32)] * 3
    image = batches[1]['inputs'][3].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(image, 255 - Shapes(size=6, split='val').draw(1).img)


@pytest.mark.parametrize(
    'argument', [dict(split='test'), dict(image_size=7), dict(size=-3), dict(size=0), dict(seed=-1)], ids=str
)
def test_bad_arguments_are_named(argument):
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=f'{name}.*{value!r}'):
        Shapes(**argument)


@pytest.mark.parametrize(
    'options', [dict(size=10.0), dict(size='10'), dict(image_size=32.5), dict(image_size=(32, 48)), dict(seed=None)]
)
def test_numbers_that_are_no_whole_ones(options):
    with pytest.raises(ValueError, match=f'Shapes: {next(iter(options))} must be a whole number'):
        Shapes(**options)
