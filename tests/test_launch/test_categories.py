import json

import pytest

from mmebm.commands.make_shapes import main as make_shapes
from mmebm.datasets import Shapes
from mmebm.launch.checks.categories import check_categories

CLASSES = Shapes.METAINFO['classes']
mmdet_datasets = pytest.importorskip('mmdet.datasets', exc_type=ImportError)


@pytest.fixture
def coco(tmp_path):
    """Builds mmdet's data set of given classes on a file whose category ``ring`` is called otherwise."""
    make_shapes([str(tmp_path), '--layout', 'coco', '--image-size', '64', '--train', '2', '--val', '2'])
    file = tmp_path / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    next(category for category in content['categories'] if category['name'] == 'ring')['name'] = 'Ring'
    file.write_text(json.dumps(content))

    def build(classes):
        data = dict(ann_file=str(file), data_prefix=dict(img=''))
        return mmdet_datasets.CocoDataset(**data, metainfo=dict(classes=classes), pipeline=[])

    return build


def test_a_class_without_a_category_is_named_within_wrappers(coco):
    dataset = mmdet_datasets.ConcatDataset([coco(CLASSES)])
    message = r'train2017\.json has no category ring, which metainfo\.classes of place names, but arrow, crescent'
    with pytest.raises(ValueError, match=message):
        check_categories(dataset, 'place')


def test_some_of_the_categories_pass(coco):
    check_categories(coco(('arrow', 'Ring')), 'place')
    check_categories(coco(tuple(name.replace('ring', 'Ring') for name in CLASSES)), 'place')
