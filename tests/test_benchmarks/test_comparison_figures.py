from benchmarks.comparison_figures import along_the_runs, ends_of_schedules


def test_ends_of_schedules_are_the_ends():
    rows = ends_of_schedules()
    assert {row['epoch'] for row in rows} == {0, 4, 8, 16, 32}
    assert all(row['finetune_top1'] is not None for row in rows)  # which only ends are
    lengths = {
        method: sorted({row['epoch'] for row in rows if row['method'] == method}) for method in ('mae', 'random')
    }
    assert lengths == dict(mae=[4, 8, 16, 32], random=[0])


def test_seconds_are_those_of_one_machine():
    counts = {}
    for axis in ('epoch', 'seconds'):
        rows = along_the_runs('compare_cifar10', axis)
        counts[axis] = [len({row['seed'] for row in rows if row['method'] == method}) for method in ('mae', 'simmim')]
    assert counts == dict(epoch=[3, 3], seconds=[3, 1])
