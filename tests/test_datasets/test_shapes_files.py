import json

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from mmebm.commands.make_shapes import main
from mmebm.datasets import ImageFolder, Shapes
from mmebm.datasets.embedded.shapes_files import run_lengths

CLASSES = Shapes.METAINFO['classes']
SIZE = 48


def make(out, layout):
    main([str(out), '--layout', layout, '--train', '20', '--val', '11', f'--image-size={SIZE}', '--seed=5'])


def shapes(split, size):
    return Shapes(size=size, image_size=SIZE, split=split, seed=5)


def decode(counts, shape):
    """COCO's rule, written the long way."""
    flat, inside = [], False
    for count in counts:
        flat += [inside] * count
        inside = not inside
    return np.array(flat).reshape(shape, order='F')


def close(jpeg, image):
    return np.abs(cv2.imread(str(jpeg)).astype(int) - image).mean() < 8


@pytest.mark.parametrize('mask', [[[0, 1], [1, 1]], [[1, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
def test_run_lengths(mask):
    mask = np.array(mask, bool)
    np.testing.assert_array_equal(decode(run_lengths(mask), mask.shape), mask)


def test_run_lengths_go_down_the_columns():
    assert run_lengths(np.array([[1, 0, 1], [1, 0, 0]], bool)) == [0, 2, 2, 1, 1]


def test_imagenet_layout(tmp_path):
    make(tmp_path / 'out', 'imagenet')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['train', 'val']
    for split, size in (('train', 20), ('val', 11)):
        files = ImageFolder(str(tmp_path / 'out'), data_prefix=split, with_label=True)
        drawn = shapes(split, size)
        assert tuple(files.metainfo['classes']) == CLASSES
        assert len(files) == size
        for info in (files.get_data_info(i) for i in range(size)):
            index = int(info['img_path'][-12:-4])
            assert info['gt_label'] == drawn.draw(index).gt_label
            np.testing.assert_array_equal(cv2.imread(info['img_path']), drawn.draw(index).img)


def test_ade20k_layout(tmp_path):
    make(tmp_path, 'ade20k')  # an empty folder is accepted
    for split, size, folder in (('train', 20, 'training'), ('val', 11, 'validation')):
        jpegs = sorted((tmp_path / 'images' / folder).glob('*.jpg'))
        maps = sorted((tmp_path / 'annotations' / folder).glob('*.png'))
        assert [path.stem for path in jpegs] == [path.stem for path in maps]
        assert len(maps) == size
        drawn = shapes(split, size)
        for i, path in enumerate(maps):
            picture = drawn.draw(i)
            np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), picture.gt_seg_map)
            assert close(jpegs[i], picture.img)


def test_mmseg_reads_the_ade20k_layout(tmp_path):
    mmseg = pytest.importorskip('mmseg.datasets', exc_type=ImportError)
    make(tmp_path, 'ade20k')
    dataset = mmseg.ADE20KDataset(
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[mmseg.transforms.LoadAnnotations()],
    )
    expected = shapes('val', 11).draw(4).gt_seg_map.astype(int) - 1
    np.testing.assert_array_equal(dataset[4]['gt_seg_map'], np.where(expected < 0, 255, expected))


def test_coco_layout(tmp_path):
    make(tmp_path, 'coco')
    for split, size in (('train', 20), ('val', 11)):
        content = json.loads((tmp_path / 'annotations' / f'instances_{split}2017.json').read_text())
        assert [(category['id'], category['name']) for category in content['categories']] == list(enumerate(CLASSES, 1))
        assert len({annotation['id'] for annotation in content['annotations']}) == len(content['annotations'])
        assert len(content['images']) == size
        drawn = shapes(split, size)
        for i, image in enumerate(content['images']):
            picture = drawn.draw(i)
            assert close(tmp_path / f'{split}2017' / image['file_name'], picture.img)
            assert (image['height'], image['width']) == (SIZE, SIZE)
            annotations = [a for a in content['annotations'] if a['image_id'] == image['id']]
            assert len(annotations) == len(picture.instances)
            for annotation, instance in zip(annotations, picture.instances, strict=True):
                mask = decode(annotation['segmentation']['counts'], annotation['segmentation']['size'])
                np.testing.assert_array_equal(mask, instance.mask)
                x, y, width, height = annotation['bbox']
                assert (x, y, x + width, y + height) == instance.bbox
                assert annotation['area'] == mask.sum()
                assert annotation['category_id'] == instance.label + 1


def test_mmdet_reads_the_coco_layout(tmp_path):
    mmdet = pytest.importorskip('mmdet.datasets', exc_type=ImportError)
    make(tmp_path, 'coco')
    dataset = mmdet.CocoDataset(
        data_root=str(tmp_path),
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[LoadImageFromFile(), mmdet.transforms.LoadAnnotations(with_mask=True)],
    )
    results, picture = dataset[2], shapes('val', 11).draw(2)
    assert results['gt_bboxes_labels'].tolist() == [instance.label for instance in picture.instances]
    np.testing.assert_array_equal(results['gt_masks'].masks, [instance.mask for instance in picture.instances])


def test_refuses_a_folder_in_use(tmp_path, capsys):
    (tmp_path / 'mine.txt').write_text('keep')
    with pytest.raises(SystemExit, match='2'):
        make(tmp_path, 'imagenet')
    assert f'{tmp_path} exists and is not an empty folder' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_bad_values_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        main([str(tmp_path / 'out'), '--layout=coco', '--image-size=4'])
    assert 'image_size must be a whole number of at least 8, not 4' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_says_where_the_files_are(tmp_path, capsys):
    make(tmp_path / 'out', 'imagenet')
    out = capsys.readouterr().out
    assert f'20 train and 11 val images, {SIZE} px, in {tmp_path / "out"}' in out
    assert ', '.join(CLASSES) in out
