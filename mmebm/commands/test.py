"""``mmebm-test``: mmpretrain's test script, for mmebm's configs by name or any config by path."""

from collections.abc import Sequence

from mmebm.launch.scripts import test


def main(argv: Sequence[str] | None = None) -> None:
    """Test a checkpoint; ``--help`` lists the flags, which are those of mmpretrain's ``tools/test.py``."""
    test(argv)


if __name__ == '__main__':
    main()
