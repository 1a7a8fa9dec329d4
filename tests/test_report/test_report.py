"""The report of trainings: what it reads, what it says, and that it is one file."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from sklearn.datasets import load_sample_image

from mmebm.commands.report import main
from mmebm.config_files import find_config
from mmebm.report import write_report
from mmebm.report.charts import charts, thinned
from mmebm.report.page import as_json, energies, make_comparable, short_names
from mmebm.report.pictures import MAX_PICTURES, data_uri, galleries, spread
from mmebm.report.run import find_run
from mmebm.report.settings import base_of, settings_that_differ
from mmebm.report.summary import lacks, row, verdict
from mmebm.visualization.restoration_sheet import compose

COLUMNS = ('clean', 'corrupted', 'restored', 'error')
LOG = """
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch: 2.11.0
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3

Runtime environment:
    seed: 3
    GPU number: 2
------------------------------------------------------------
"""


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(map(json.dumps, rows)) + '\n')


def train_line(iteration, epoch=1, **values):
    return dict(loss=1.0 / iteration, time=0.5, epoch=epoch, iter=iteration, step=iteration) | values


def restorations(step, energy=1.0, **options):
    group = dict(picture=f'restorations_mask_{step}.png', rows=2, columns=COLUMNS)
    group |= dict(clean=[-1.0, 0.0], corrupted=[energy, 2.0], restored=[0.0, 0.0])
    return (
        dict(step=step, unit='epoch', source='the data set of val_dataloader', corruptions=dict(mask=group)) | options
    )


def make_run(folder, start='20260101_000000', config='ebm_vit-t_shapes', epochs=2, **changes):
    """A work dir as a training leaves it; the restored image is as bright as the epoch."""
    vis_data = folder / start / 'vis_data'
    lines = []
    for epoch in range(1, epochs + 1):
        lines.append(train_line(10 * epoch, epoch))
        lines.append({'restoration/mask/psnr_corrupted_db': 16.0, 'restoration/mask/psnr_restored_db': 16.0 + epoch,
                      'energy/mask/auroc': 0.5 + epoch / 10, 'step': epoch})  # fmt: skip
    lines += [{'frozen/linear_top1': 10.0, 'step': 0}, {'frozen/linear_top1': 30.0, 'step': epochs}]
    write_lines(vis_data / 'scalars.json', lines)
    write_lines(vis_data / 'restorations.json', [restorations(step) for step in range(epochs + 1)])
    (vis_data / 'vis_image').mkdir(exist_ok=True)
    for step in range(epochs + 1):
        rows = [{name: np.full((8, 12, 3), step, np.uint8) for name in COLUMNS} for _ in range(2)]
        Image.fromarray(compose(rows)).save(vis_data / 'vis_image' / f'restorations_mask_{step}.png')
    cfg = Config.fromfile(find_config(config))
    cfg.merge_from_dict(changes | {'work_dir': str(folder)})
    cfg.dump(vis_data / 'config.py')
    (folder / f'{config}.py').write_text('')  # mmengine copies the config there
    (folder / start / f'{start}.log').write_text(LOG)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / 'run')


@pytest.fixture
def run(folder):
    return find_run(folder, 'run')


class References(HTMLParser):
    """What a page refers to."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ('src', 'href', 'srcset', 'action', 'poster')]


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_file_refers_to_nothing_outside_itself(folder, capsys):
    main([str(folder)])
    page = (folder / 'report.html').read_text()
    references = References(page)
    assert 'link' in references.tags and {'iframe', 'object', 'embed', 'base'} & references.tags == set()
    assert [found for found in references.found if not found.startswith(('#', 'data:'))] == []
    code = page.replace('http://www.w3.org/2000/svg', '')
    assert not re.search(r'https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(', code)
    assert capsys.readouterr().out.startswith(f'{folder / "report.html"} (')
    sections = ('summary', 'progress', 'restorations', 'energies', 'training', 'speed', 'downstream', 'configuration')
    assert all(f'<section id="{name}">' in page for name in sections)


def test_names_of_folders_and_values_are_text_only(tmp_path):
    folder = make_run(tmp_path / '<img src=x onerror=alert(1)>', **{'train_dataloader.dataset.split': '</script><b>'})
    write_report([folder], tmp_path / 'out' / 'report.html')
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert '<img src=x' not in page and '</script><b>' not in page
    assert '&lt;img src=x onerror=alert(1)&gt;' in page
    assert embedded(page)['galleries'][0]['run'] == folder.name
    assert as_json('</script>') == '"\\u003c/script>"'


def test_values_of_a_resumed_run_count_once(folder):
    later = folder / '20260102_000000' / 'vis_data'
    write_lines(later / 'scalars.json', [train_line(20, 2, loss=9.0), train_line(30, 3)])
    write_lines(later / 'restorations.json', [restorations(2, energy=7.0), restorations(3)])
    run = find_run(folder, 'run')
    assert run.curves['iteration']['loss'] == [(10, 0.1), (20, 9.0), (30, pytest.approx(1 / 30))]
    assert [entry['step'] for entry in run.restorations] == [0, 1, 2, 3]
    assert energies([run])[0]['steps'][2]['corrupted'] == [7.0, 2.0]
    assert run.position == ('epoch', 3)
    assert run.environment['seed'] == '3'  # from the log that is there


def test_a_shorter_training_that_began_anew_replaces_the_older_one(tmp_path):
    make_run(tmp_path, epochs=10)
    make_run(tmp_path, '20260102_000000', epochs=3)
    run = find_run(tmp_path, 'a')
    assert run.curves['evaluation']['restoration/mask/psnr_restored_db'][-1] == (3, 19.0)
    assert run.curves['iteration']['loss'][-1][0] == 30
    assert [entry['step'] for entry in run.restorations] == [0, 1, 2, 3]


def test_energies_that_are_not_finite_are_left_out(tmp_path):
    make_run(tmp_path, epochs=1)
    (file,) = tmp_path.glob('*/vis_data/restorations.json')
    write_lines(file, [restorations(0, energy=float('inf')), restorations(1, energy=float('nan'))])
    (shown,) = energies([find_run(tmp_path, 'a')])
    assert [step['corrupted'] for step in shown['steps']] == [[2.0], [2.0]]
    json.loads(as_json(shown), parse_constant=pytest.fail)


def test_a_running_training_and_values_that_are_not_finite(folder):
    file = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    with file.open('a') as log:
        log.write(json.dumps(train_line(30, 3, loss=float('nan'))) + '\n{"loss": 0.')
    run = find_run(folder, 'run')
    assert run.curves['iteration']['loss'] == [(10, 0.1), (20, 0.05)]
    assert run.curves['iteration']['time'][-1] == (30, 0.5)
    write_report([folder], folder / 'report.html')
    assert 'NaN' not in (folder / 'report.html').read_text().split('id="data">')[1].split('</script>')[0]


def test_the_summary_has_the_last_values(run):
    found = row(run)
    assert found['method'] == 'EBMAlgorithm' and found['data'] == 'Shapes'
    assert found['length'] == '2 of 7 epochs'
    assert found['restoration gains'] == 'mask +2.00 dB'
    assert found['AUROC of the energy'] == 'mask 0.700'
    assert found['linear probe'] == '10.0% → 30.0%' and found['kNN'] == '-'
    assert found['images per second'] == '128.0 (median)'  # 32 on each of two devices in half a second
    assert found['peak memory'] == 'not measured on a CPU'


def test_label_free_metrics_have_charts_by_their_scales_and_a_row(tmp_path):
    lines = [
        {'frozen/rankme': 20.0 + step, 'frozen/lidar': 9.0, 'frozen/alpha_req': 1.5, 'step': step} for step in (0, 4)
    ]
    write_lines(tmp_path / 'a' / 'vis_data' / 'scalars.json', [train_line(10), *lines])
    run = find_run(tmp_path, 'run')
    assert row(run)['RankMe'] == '20.0 → 24.0' and row(run)['linear probe'] == '-'
    drawn = {chart['title']: [line['label'] for line in chart['series']] for chart in charts([run])}
    assert drawn['Effective dimensions of features, without labels'] == ['lidar', 'rankme']
    assert drawn['Decay of the spectrum of features, without labels'] == ['alpha_req']
    assert 'Frozen features' not in drawn


def test_the_verdict_names_what_moved(run):
    assert verdict(run) == (
        'Restored images are closer to the clean ones than the corrupted ones, by more than 0.1 dB, for 1 of 1 '
        'corruptions: mask. The features have improved: linear probe 10.0% at the start, 30.0% at the end.'
    )


def test_without_measurements_the_verdict_says_so(tmp_path):
    write_lines(tmp_path / 'a' / 'vis_data' / 'scalars.json', [train_line(10)])
    run = find_run(tmp_path, 'run')
    assert 'the log does not tell whether it learns' in verdict(run)
    said = ' '.join(lacks(run))
    assert 'mmebm.RestorationProgressHook' in said and 'mmebm.FrozenFeatureHook' in said and 'GPUs only' in said
    write_report([tmp_path], tmp_path / 'report.html')
    data = embedded((tmp_path / 'report.html').read_text())
    assert data['galleries'] == data['energies'] == []


@pytest.mark.parametrize(
    ('config', 'words'),
    [('ebm-patches_vit-t_shapes-64px', 'no energy of whole images'), ('cim-respix_vit-t_shapes', 'CIM has no energy')],
)
def test_what_a_method_lacks_is_said(tmp_path, config, words):
    run = find_run(make_run(tmp_path / 'run', config=config), 'run')
    assert words in ' '.join(lacks(run))


def test_the_energies_of_patches_are_told_from_those_of_images(run):
    curves = run.curves['evaluation']
    curves |= {'held_out/token_mask/auroc': [(1, 0.6)], 'held_out/sort/token_auroc': [(1, 0.8)]}
    found = row(run)
    assert found['AUROC of the energies of patches'] == 'sort 0.800'
    assert 'token_mask 0.600' in found['AUROC of the energy'] and 'sort' not in found['AUROC of the energy']


def test_pictures_of_training_images_are_said_to_be_such(folder):
    file = folder / '20260101_000000' / 'vis_data' / 'restorations.json'
    write_lines(file, [restorations(0, source='the training images (test_dataloader names x, which is not here)')])
    run = find_run(folder, 'run')
    assert 'from training, not held out' in ' '.join(lacks(run))
    assert row(run)['restoration gains'] == 'mask +2.00 dB (training images)'


def test_pictures_over_time_keep_what_never_changes_once(run):
    (gallery,) = galleries([run])
    assert (gallery['corruption'], gallery['steps']) == ('mask', [0, 1, 2])
    assert len(gallery['images']) == 2
    assert {name: len(uris) for name, uris in gallery['images'][0].items()} == dict(
        clean=1, corrupted=1, restored=3, error=3
    )
    assert len(set(gallery['images'][0]['restored'])) == 3  # each epoch's is another one


def test_of_a_long_run_steps_are_left_out_evenly(folder):
    file = folder / '20260101_000000' / 'vis_data' / 'restorations.json'
    write_lines(file, [restorations(step) for step in range(1000)])
    run = find_run(folder, 'run')
    data = json.dumps(galleries([run]))
    assert data.count('data:image') <= MAX_PICTURES + 10
    assert spread(range(11), 3) == [0, 5, 10] and spread(range(2), 3) == [0, 1]


def test_pictures_that_are_missing_or_broken_are_left_out(folder):
    images = folder / '20260101_000000' / 'vis_data' / 'vis_image'
    (images / 'restorations_mask_1.png').write_bytes(b'no picture')
    (images / 'restorations_mask_2.png').unlink()
    assert [gallery['steps'] for gallery in galleries([find_run(folder, 'run')])] == [[0]]


def test_as_many_pictures_as_a_report_takes_fit_in_ten_megabytes():
    """Of photographs, at the largest size."""
    photograph = load_sample_image('china.jpg')
    sizes = [len(data_uri(photograph[y : y + 224, x : x + 224])) for y in (0, 200) for x in (0, 200, 400)]
    assert np.mean(sizes) * MAX_PICTURES < 8e6


def test_a_chart_of_one_run_has_a_line_a_corruption(run):
    drawn = {spec['title']: spec for spec in charts([run])}
    (restored,) = (spec for spec in drawn.values() if spec['title'] == 'Restoration')
    assert [(line['label'], line['dashed']) for line in restored['series']] == [('mask', True), ('mask', False)]
    assert restored['series'][1]['points'] == [(1, 17.0), (2, 18.0)] and restored['axis'] == 'epoch'
    assert drawn['Training loss']['axis'] == 'iteration' and drawn['Training loss']['log']


def test_charts_of_several_runs_have_a_line_a_run(tmp_path):
    runs = [find_run(make_run(tmp_path / name, epochs=n), name) for name, n in (('a', 1), ('b', 2))]
    (restored,) = (spec for spec in charts(runs) if spec['title'] == 'Restoration: mask')
    assert [(line['label'], line['color']) for line in restored['series']] == [
        ('a', 'a'),
        ('a', 'a'),
        ('b', 'b'),
        ('b', 'b'),
    ]
    write_report([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'report.html')
    assert [gallery['run'] for gallery in embedded((tmp_path / 'report.html').read_text())['galleries']] == ['a', 'b']


def test_curves_that_nobody_named_are_drawn_too(folder):
    file = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    with file.open('a') as log:
        log.write(json.dumps(train_line(30, 3, token_accuracy=0.5)) + '\n')
    titles = [spec['title'] for spec in charts([find_run(folder, 'run')])]
    assert 'token_accuracy' in titles and not [title for title in titles if 'auroc' in title or 'psnr' in title]


def test_runs_are_compared_on_the_same_measurements(tmp_path):
    """Only the first has those of the hook, whose images may be others: both show the validation set."""
    runs = []
    for name in 'ab':
        folder = make_run(tmp_path / name)
        if name == 'a':
            with (folder / '20260101_000000' / 'vis_data' / 'scalars.json').open('a') as log:
                log.write(json.dumps({'held_out/mask/psnr_restored_db': 99.0, 'step': 1}) + '\n')
        runs.append(find_run(folder, name))
    make_comparable(runs)
    assert 'held_out/mask/psnr_restored_db' not in runs[0].curves['evaluation']
    assert row(runs[0])['restoration gains'] == row(runs[1])['restoration gains']


@pytest.mark.slow
def test_what_differs_from_the_base_is_found_without_its_name(tmp_path):
    changes = {'optim_wrapper.optimizer.lr': 0.5, 'train_dataloader.batch_size': 7}
    folder = make_run(tmp_path / 'run', **changes)
    (folder / 'ebm_vit-t_shapes.py').rename(folder / 'mine.py')
    name, changed = base_of(find_run(folder, 'run'))
    assert name == 'ebm_vit-t_shapes.py'
    assert changed == {'optim_wrapper.optimizer.lr': (3e-3, 0.5), 'train_dataloader.batch_size': (32, 7)}


def test_the_config_of_the_same_name_is_the_base(tmp_path):
    folder = make_run(tmp_path / 'run', config='ebm_vit-t_shapes')
    (folder / 'ebm_vit-t_shapes.py').rename(folder / 'ebm_vit-b_in1k.py')
    assert base_of(find_run(folder, 'run'))[0] == 'ebm_vit-b_in1k.py'


def test_settings_in_which_runs_differ(tmp_path):
    runs = [find_run(make_run(tmp_path / str(lr), **{'optim_wrapper.optimizer.lr': lr}), str(lr)) for lr in (1, 2, 1)]
    assert settings_that_differ(runs) == [('optim_wrapper.optimizer.lr', [1, 2, 1])]


def test_downstream_tables_are_shown(folder):
    (folder / 'evaluation').mkdir()
    (folder / 'evaluation' / 'results.md').write_text('| task | <top-1> |')
    write_report([folder], folder / 'report.html')
    page = (folder / 'report.html').read_text()
    assert 'evaluation/results.md' in page and '| task | &lt;top-1&gt; |' in page


def test_a_training_by_iterations(tmp_path):
    changes = {'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=40)}
    run = find_run(make_run(tmp_path / 'run', **changes), 'run')
    lines = [dict(train_line(20), step=20)]
    del lines[0]['epoch']
    write_lines(tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json', lines)
    run = find_run(tmp_path / 'run', 'run')
    assert row(run)['length'] == '20 of 40 iterations'
    assert {spec['axis'] for spec in charts([run])} == {'iteration'}


def test_means_of_neighbours_thin_a_curve():
    points = [(step, float(step % 2)) for step in range(1, 801)]
    assert len(thinned(points)) == 400 and set(thinned(points)) == {(step, 0.5) for step in range(2, 801, 2)}
    assert thinned([]) == [] and thinned([(1, 2.0)]) == [(1, 2.0)]


def test_folders_of_one_name_are_told_apart():
    assert short_names([Path('a/run'), Path('b/run')]) == ['a/run', 'b/run']
    with pytest.raises(ValueError, match='the same folder twice'):
        short_names([Path('a'), Path('a')])


def test_a_folder_without_a_training_is_refused(tmp_path, capsys):
    for name, words in (('none', 'none: no such folder'), ('', 'no training has left its log here')):
        with pytest.raises(SystemExit):
            main([str(tmp_path / name)])
        assert words in capsys.readouterr().err
    make_run(tmp_path / 'ebm' / 'seed_0')
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert f'Trainings are in {tmp_path}/ebm/seed_0' in capsys.readouterr().err
