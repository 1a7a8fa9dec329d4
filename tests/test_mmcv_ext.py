import subprocess
import sys
from importlib.machinery import PathFinder

import mmcv
import mmcv.ops
import mmcv.utils
import pytest
import torch

from mmebm import mmcv_ext
from mmebm.mmcv_ext_finder import MmcvExtFinder

IS_COMPILED = PathFinder.find_spec('mmcv._ext', mmcv.__path__) is not None
needs_compiled = pytest.mark.skipif(not IS_COMPILED, reason="mmcv's compiled ops are not installed")
needs_stand_in = pytest.mark.skipif(IS_COMPILED, reason="mmcv's compiled ops are installed")
COMMAND = 'pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv=='


# Closed forms hold for mmcv's own ops, too, where they are installed.
PLACES = [('stand-in', 'cpu')]
PLACES += [('stand-in', 'cuda')] * torch.cuda.is_available() + [('compiled', 'cpu')] * IS_COMPILED


@pytest.fixture(params=PLACES, ids='-'.join)
def place(request):
    return request.param


@pytest.fixture
def ext(place):
    return mmcv_ext if place[0] == 'stand-in' else sys.modules['mmcv._ext']


@pytest.fixture
def device(place):
    return place[1]


# Non-maximum suppression


def kept(ext, boxes, scores, iou_threshold, offset=0, device='cpu'):
    boxes, scores = (torch.tensor(values, dtype=torch.float32, device=device) for values in (boxes, scores))
    kept = ext.nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)
    assert (kept.dtype, kept.device) == (torch.int64, boxes.device)
    return kept.tolist()


@pytest.mark.parametrize(
    ('box', 'offset', 'iou'),
    [
        ([0, 0, 3, 1], 0, 1 / 3),  # 3 of 9
        ([0, 0, 3, 1], 1, 1 / 2),  # 4 x 2 pixels of 4 x 4
        ([1, 1, 4, 4], 0, 4 / 14),
        ([1, 1, 4, 4], 1, 9 / 23),
        ([3, 0, 6, 3], 1, 1 / 7),  # a column in common
        ([3, 3, 6, 6], 1, 1 / 31),  # a pixel in common
    ],
)
def test_of_two_boxes_both_are_kept_up_to_their_iou(ext, device, box, offset, iou):
    boxes, scores = [[0, 0, 3, 3], box], [0.9, 0.8]
    # At the very threshold too, as a float32: the IoU has to be more.
    assert kept(ext, boxes, scores, iou, offset, device) == [0, 1]
    assert kept(ext, boxes, scores, iou * (1 + 1e-6), offset, device) == [0, 1]
    assert kept(ext, boxes, scores, iou * (1 - 1e-6), offset, device) == [0]


def test_boxes_without_a_common_pixel_do_not_overlap(ext, device):
    assert kept(ext, [[0, 0, 3, 3], [3, 0, 6, 3]], [0.9, 0.8], 0.0, 0, device) == [0, 1]
    assert kept(ext, [[0, 0, 3, 3], [4, 0, 7, 3]], [0.9, 0.8], 0.0, 1, device) == [0, 1]


def test_suppression_is_greedy_and_sorted_by_score(ext, device):
    boxes = [
        [4, 0, 14, 10],
        [0, 0, 10, 10],
        [8, 0, 18, 10],
        [30, 0, 40, 10],
    ]  # IoU of neighbours 6/14, of the next 2/18
    scores = [0.5, 0.7, 0.4, 0.9]
    assert kept(ext, boxes, scores, 0.4, device=device) == [3, 1, 2]  # what 0 would have dropped stays
    assert kept(ext, boxes, scores, 0.5, device=device) == [3, 1, 0, 2]
    assert kept(ext, boxes, scores, 0.1, device=device) == [3, 1]


def test_of_equal_scores_the_first_comes_first(device):
    left, zeros = 10.0 * torch.arange(100, device=device), torch.zeros(100, device=device)
    boxes = torch.stack([left, zeros, left + 14, zeros + 10], 1)
    scores = torch.full((100,), 0.5, device=device)
    assert mmcv_ext.nms(boxes, scores, 0.1, 0).tolist() == list(range(0, 100, 2))  # each overlaps the next


@pytest.mark.parametrize('offset', [0, 1])
def test_no_boxes(ext, device, offset):
    empty = torch.zeros(0, 4, device=device)
    indices = ext.nms(empty, empty[:, 0], iou_threshold=0.5, offset=offset)
    assert indices.shape == (0,) and indices.dtype == torch.int64


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_of_other_floating_types_is_that_of_float32(device, dtype, offset):
    boxes = random_boxes(60, device).round().to(dtype)
    scores = torch.rand(60, device=device).to(dtype)
    expected = mmcv_ext.nms(boxes.float(), scores.float(), 0.45, offset)
    assert mmcv_ext.nms(boxes, scores, 0.45, offset).equal(expected)
    assert mmcv_ext.nms(boxes, scores.float(), 0.45, offset).equal(expected)
    assert 0 < len(expected) < 60


def test_mmcvs_own_options_of_nms():
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    scores = torch.tensor([0.6, 0.8, 0.7, 0.1])
    detections, indices = mmcv.ops.nms(boxes, scores, iou_threshold=0.5)
    assert indices.tolist() == [1, 2, 3]
    assert detections.equal(torch.cat([boxes, scores[:, None]], 1)[[1, 2, 3]])
    assert mmcv.ops.nms(boxes, scores, iou_threshold=0.5, score_threshold=0.2)[1].tolist() == [1, 2]
    assert mmcv.ops.nms(boxes, scores, iou_threshold=0.5, max_num=1)[1].tolist() == [1]
    assert mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5, offset=1)[1].tolist() == [1, 2, 3]
    config = dict(type='nms', iou_threshold=0.5)
    classes = torch.tensor([0, 1, 0, 0])
    assert mmcv.ops.batched_nms(boxes, scores, classes, config)[1].tolist() == [1, 2, 0, 3]  # 0 and 1 differ in class
    assert mmcv.ops.batched_nms(boxes, scores, classes, config, class_agnostic=True)[1].tolist() == [1, 2, 3]


# RoIAlign


def forward(ext, images, rois, size, scale=1.0, ratio=0, aligned=True, mode=1):
    """As mmcv's `roi_align` calls it; NaN shows what is not written."""
    output = images.new_full((len(rois), images.shape[1], *size), torch.nan)
    none = images.new_zeros(0)
    ext.roi_align_forward(
        images,
        rois,
        output,
        none,
        none,
        aligned_height=size[0],
        aligned_width=size[1],
        spatial_scale=scale,
        sampling_ratio=ratio,
        pool_mode=mode,
        aligned=aligned,
    )
    return output


def backward(ext, gradient, rois, shape, scale=1.0, ratio=0, aligned=True, mode=1):
    grad_input = gradient.new_zeros(shape)
    none = gradient.new_zeros(0)
    ext.roi_align_backward(
        gradient,
        rois,
        none,
        none,
        grad_input,
        aligned_height=gradient.shape[2],
        aligned_width=gradient.shape[3],
        spatial_scale=scale,
        sampling_ratio=ratio,
        pool_mode=mode,
        aligned=aligned,
    )
    return grad_input


def ramp(dtype, device, images=2, height=9, width=12):
    """Image b, channel c has 100 b + 10 c + 2 x - 3 y at column x and row y."""
    b, c, y, x = torch.meshgrid(*map(torch.arange, (images, 2, height, width)), indexing='ij')
    return (100 * b + 10 * c + 2 * x - 3 * y).to(device, dtype)


def means_of_ramp(rois, size, scale, aligned):
    """A ramp's mean in a cell is its value at the cell's centre."""
    b, x1, y1, x2, y2 = rois.T[..., None, None, None]
    x1, y1, x2, y2 = (value * scale - 0.5 * aligned for value in (x1, y1, x2, y2))
    row = (torch.arange(size[0]).to(rois)[:, None] + 0.5) / size[0]
    column = (torch.arange(size[1]).to(rois) + 0.5) / size[1]
    channel = torch.arange(2).to(rois)[:, None, None]
    return 100 * b + 10 * channel + 2 * (x1 + column * (x2 - x1)) - 3 * (y1 + row * (y2 - y1))


@pytest.mark.parametrize('scale', [1.0, 0.5, 0.25])
@pytest.mark.parametrize('ratio', [0, 1, 2, 3])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_means_of_a_ramp(ext, device, scale, ratio, aligned, dtype):
    rois = torch.tensor([[0, 1, 1, 8, 5], [1, 2.5, 3.25, 7, 7.75], [1, 4, 0.5, 10.5, 2]], dtype=dtype, device=device)
    rois[:, 1:] /= scale
    pooled = forward(ext, ramp(dtype, device), rois, (2, 3), scale, ratio, aligned)
    torch.testing.assert_close(pooled, means_of_ramp(rois, (2, 3), scale, aligned))


def test_only_where_not_aligned_regions_have_a_pixel_at_least(ext, device):
    images = ramp(torch.float64, device)
    roi = torch.tensor([[0, 3, 4, 3.5, 4.25]], dtype=torch.float64, device=device)
    widened = torch.tensor([[0, 3, 4, 4, 5]], dtype=torch.float64, device=device)
    for aligned, region in ((True, roi), (False, widened)):
        pooled = forward(ext, images, roi, (2, 2), aligned=aligned)
        torch.testing.assert_close(pooled, means_of_ramp(region, (2, 2), 1.0, aligned))


def test_samples_of_a_single_pixel_are_weighed_bilinearly(ext, device):
    image = torch.zeros(1, 1, 6, 6, dtype=torch.float64, device=device)
    image[0, 0, 2, 3] = 1
    roi = torch.tensor([[0, 3, 2, 5, 3]], dtype=torch.float64, device=device)  # 2 wide and 1 high
    # One sample, at x = 4, y = 2.5 of an image whose pixels lie at their indices: on the next column.
    assert forward(ext, image, roi, (1, 1), ratio=1, aligned=False).item() == 0
    # Aligned, at x = 3.5, y = 2.
    assert forward(ext, image, roi, (1, 1), ratio=1).item() == 0.5
    # Four samples, at x = 3.5 and 4.5, y = 2.25 and 2.75.
    assert forward(ext, image, roi, (1, 1), ratio=2, aligned=False).item() == 0.5 * (0.75 + 0.25) / 4
    # One a pixel, rounded up: two along x, at 3.5 and 4.5, one along y, at 2.5.
    assert forward(ext, image, roi, (1, 1), ratio=0, aligned=False).item() == 0.5 * 0.5 / 2


def test_outside_of_the_image_there_are_zeros(ext, device):
    rois = torch.tensor([[0, -9, -9, -3, -3], [0, 30, 30, 40, 40.0]], device=device)
    assert forward(ext, torch.ones(1, 2, 6, 6, device=device), rois, (2, 2)).eq(0).all()


def test_no_regions(ext, device):
    images, rois = ramp(torch.float32, device), torch.zeros(0, 5, device=device)
    assert forward(ext, images, rois, (2, 3)).shape == (0, 2, 2, 3)
    assert backward(ext, torch.zeros(0, 2, 2, 3, device=device), rois, images.shape).equal(torch.zeros_like(images))


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_gradient_of_a_region_inside_sums_to_that_of_its_cells(ext, device, ratio, aligned):
    rois = torch.tensor([[0, 1, 1, 8, 5], [1, 2.5, 3.25, 7, 7.75]], dtype=torch.float64, device=device)
    gradient = torch.randn(2, 2, 3, 4, dtype=torch.float64, device=device)
    grad_input = backward(ext, gradient, rois, (2, 2, 9, 12), ratio=ratio, aligned=aligned)
    torch.testing.assert_close(grad_input.sum((2, 3)), gradient.sum((2, 3)))


def test_gradient_of_a_single_sample(ext, device):
    roi = torch.tensor([[0, 3, 2, 3.5, 3.5]], dtype=torch.float64, device=device)  # its centre: x = 3.25, y = 2.75
    gradient = torch.full((1, 1, 1, 1), 8.0, dtype=torch.float64, device=device)
    grad_input = backward(ext, gradient, roi, (1, 1, 6, 6), ratio=1)  # aligned: at x = 2.75, y = 2.25
    expected = torch.zeros(1, 1, 6, 6, dtype=torch.float64, device=device)
    expected[0, 0, 2:4, 2:4] = 8 * torch.tensor([[0.75 * 0.25, 0.75 * 0.75], [0.25 * 0.25, 0.25 * 0.75]])
    torch.testing.assert_close(grad_input, expected)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
def test_gradient_against_finite_differences(ratio, aligned):
    images = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 1, 1, 7, 5], [1, -3, 2, 5, 14], [1, 4, 0, 15, 7.5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mmcv.ops.roi_align(x, rois, (2, 3), 0.5, ratio, 'avg', aligned), images)


def test_mmcvs_module_trains_through_it():
    images = ramp(torch.float32, 'cpu').requires_grad_()
    rois = torch.tensor([[0, 1, 1, 8, 5], [1, 2.5, 3.25, 7, 7.75]])
    pooled = mmcv.ops.RoIAlign(output_size=7, spatial_scale=1.0, sampling_ratio=0)(images, rois)
    torch.testing.assert_close(pooled, means_of_ramp(rois, (7, 7), 1.0, True))
    pooled.transpose(2, 3).sum().backward()  # a gradient with other strides
    torch.testing.assert_close(images.grad.sum((2, 3)), torch.full((2, 2), 49.0))


def test_the_gradient_is_added():
    roi = torch.tensor([[0, 1.0, 1.0, 4.0, 4.0]])
    grad_input, none = torch.ones(1, 1, 6, 6), torch.zeros(0)
    mmcv_ext.roi_align_backward(torch.ones(1, 1, 2, 2), roi, none, none, grad_input, 2, 2, 1.0, 0, 1, True)
    assert grad_input.sum().item() == pytest.approx(36 + 4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded_once(device, dtype):
    images = torch.randn(2, 3, 9, 12, device=device).to(dtype)
    rois = torch.tensor([[0, 1, 1, 8, 5], [1, 2.5, 3.25, 7, 7.75]], dtype=dtype, device=device)
    pooled = forward(mmcv_ext, images, rois, (2, 3))
    assert pooled.equal(forward(mmcv_ext, images.float(), rois.float(), (2, 3)).to(dtype))
    gradient = torch.randn(2, 3, 2, 3, device=device).to(dtype)
    expected = backward(mmcv_ext, gradient.float(), rois.float(), images.shape)
    torch.testing.assert_close(backward(mmcv_ext, gradient, rois, images.shape), expected.to(dtype))


def test_autocast_changes_nothing(device):
    images = torch.randn(2, 3, 9, 12, device=device)
    rois = torch.tensor([[0, 1, 1, 8, 5], [1, 2.5, 3.25, 7, 7.75]], device=device)
    boxes, scores = random_boxes(60, device), torch.rand(60, device=device)
    expected = forward(mmcv_ext, images, rois, (2, 3)), mmcv_ext.nms(boxes, scores, 0.5, 1)
    with torch.autocast(device, torch.bfloat16):
        found = forward(mmcv_ext, images, rois, (2, 3)), mmcv_ext.nms(boxes, scores, 0.5, 1)
    assert all(map(torch.equal, found, expected))


# Beside mmcv's compiled ops


def random_boxes(number, device='cpu'):
    """Of 100 pixels a side, many of which overlap by half."""
    centre = 100 * torch.rand(number // 4 + 1, 2, device=device).repeat(4, 1)[:number]
    centre, sides = centre + 4 * torch.randn(number, 2, device=device), 8 + 30 * torch.rand(number, 2, device=device)
    return torch.cat([centre - sides / 2, centre + sides / 2], 1)


@needs_compiled
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_the_compiled_one(offset):
    compiled = sys.modules['mmcv._ext']
    for seed in range(200):
        torch.manual_seed(seed)
        boxes, scores = random_boxes(200), torch.randperm(200) / 200  # mmcv leaves the order of equal scores open
        if seed % 2:  # whole pixels, so that IoUs hit the threshold
            boxes = boxes.round()
        for threshold in (0.3, 0.5, 0.7):
            expected = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
            assert mmcv_ext.nms(boxes, scores, threshold, offset).equal(expected), (seed, threshold)
            tied = (20 * scores).round()
            order = tied.sort(descending=True, stable=True).indices
            expected = order[compiled.nms(boxes[order], -torch.arange(200.0), iou_threshold=threshold, offset=offset)]
            assert mmcv_ext.nms(boxes, tied, threshold, offset).equal(expected), (seed, threshold)


@needs_compiled
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_equals_the_compiled_one(aligned, dtype):
    compiled = sys.modules['mmcv._ext']
    for seed in range(100):
        torch.manual_seed(seed)
        images = torch.randn(2, 3, 13, 17).to(dtype)
        rois = torch.cat([torch.randint(2, (20, 1)), random_boxes(20)], 1).to(dtype)
        options = dict(scale=0.125, ratio=seed % 3, aligned=aligned)
        pooled = forward(mmcv_ext, images, rois, (7, 5), **options)
        torch.testing.assert_close(pooled, forward(compiled, images, rois, (7, 5), **options))
        gradient = torch.randn_like(pooled)
        expected = backward(compiled, gradient, rois, images.shape, **options)
        found = backward(mmcv_ext, gradient, rois, images.shape, **options)
        torch.testing.assert_close(found, expected)


@needs_compiled
def test_half_precision_is_nearer_to_the_truth_than_the_compiled_one():
    for seed in range(20):
        torch.manual_seed(seed)
        images = torch.randn(2, 3, 13, 17, dtype=torch.float16)
        rois = torch.cat([torch.randint(2, (20, 1)), random_boxes(20)], 1).half()
        truth = forward(mmcv_ext, images.double(), rois.double(), (7, 5), 0.125)
        ours, theirs = (
            (forward(each, images, rois, (7, 5), 0.125) - truth).abs().max()
            for each in (mmcv_ext, sys.modules['mmcv._ext'])
        )
        assert ours < theirs


# What it does not have


def test_any_other_op_raises_when_it_is_called():
    op = mmcv_ext.modulated_deform_conv_forward
    with pytest.raises(NotImplementedError, match='^modulated_deform_conv_forward is one of mmcv') as caught:
        op(torch.zeros(1), weight=None)
    assert COMMAND in str(caught.value).splitlines()[-1]
    assert op.__name__ == 'modulated_deform_conv_forward'
    assert not hasattr(mmcv_ext, '__path__')  # what Python asks modules for is no op


@needs_stand_in
def test_mmcv_imports_with_all_its_ops_and_raises_at_the_call():
    with pytest.raises(NotImplementedError, match='^softnms is one of'):
        mmcv.ops.soft_nms(torch.zeros(1, 4), torch.zeros(1))
    layer = mmcv.ops.DeformConv2d(2, 2, 3, padding=1)
    with pytest.raises(NotImplementedError, match='^deform_conv_forward is one of'):
        layer(torch.zeros(1, 2, 5, 5), torch.zeros(1, 18, 5, 5))
    assert mmcv.utils.collect_env()['MMCV Compiler'] == "none: mmebm's stand-in"


def test_max_pooling_raises():
    images, rois = ramp(torch.float32, 'cpu'), torch.tensor([[0, 1.0, 1.0, 4.0, 4.0]])
    with pytest.raises(NotImplementedError, match="^roi_align with pool_mode='max' is one of mmcv") as caught:
        forward(mmcv_ext, images, rois, (2, 2), mode=0)
    assert COMMAND in str(caught.value)
    with pytest.raises(NotImplementedError, match="^roi_align with pool_mode='max'"):
        backward(mmcv_ext, torch.zeros(1, 2, 2, 2), rois, images.shape, mode=0)


# How it comes into place


def run(code):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_the_finder_answers_for_one_name():
    finder = MmcvExtFinder()
    assert finder.find_spec('mmcv._ext').origin == mmcv_ext.__file__
    assert all(finder.find_spec(name) is None for name in ('_ext', 'mmcv', 'mmcv._ext.nms', 'mmcv.ops', 'mmdet._ext'))


@needs_stand_in
@pytest.mark.slow
def test_it_is_found_once_after_however_many_imports():
    done = run(
        'import sys, importlib, mmebm\n'
        'importlib.reload(mmebm)\n'
        "for name in [name for name in sys.modules if name.startswith('mmebm')]:\n"
        '    del sys.modules[name]\n'
        'import mmebm\n'
        "print(sum(type(f).__name__ == 'MmcvExtFinder' for f in sys.meta_path), 'mmcv' in sys.modules)\n"
        'import mmcv._ext\n'
        'print(mmcv._ext.__file__)'
    )
    assert done.stdout.split() == ['1', 'False', mmcv_ext.__file__], done.stderr


@pytest.mark.slow
def test_an_mmcv_that_has_ops_keeps_them(tmp_path):
    (tmp_path / '_ext.py').write_text('nms = "its own"')
    done = run(
        f'import mmebm, mmcv\nmmcv.__path__.insert(0, {str(tmp_path)!r})\nimport mmcv._ext\nprint(mmcv._ext.nms)'
    )
    assert done.stdout == 'its own\n', done.stderr


def test_ops_that_do_not_load_keep_their_error(tmp_path):
    (tmp_path / '_ext.py').write_text('raise ImportError("undefined symbol: of another torch")')
    done = run(f'import mmebm, mmcv\nmmcv.__path__.insert(0, {str(tmp_path)!r})\nimport mmcv.ops')
    assert done.stderr.endswith('ImportError: undefined symbol: of another torch\n')
