"""``mmebm-test``: mmpretrain's test script, for mmebm's configs by name or any config by path."""

from collections.abc import Sequence

from mmebm.launch.scripts import load_script, run_script


def main(argv: Sequence[str] | None = None) -> None:
    """Tests a checkpoint; ``--help`` lists the flags, which are those of mmpretrain's ``tools/test.py``."""
    run_script(load_script('test'), argv, ('test_dataloader',))


if __name__ == '__main__':
    main()
