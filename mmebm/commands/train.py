"""``mmebm-train``: mmpretrain's training script, for mmebm's configs by name or any config by path."""

from collections.abc import Sequence

from mmebm.launch.scripts import train


def main(argv: Sequence[str] | None = None) -> None:
    """Train; ``--help`` lists the flags, which are those of mmpretrain's ``tools/train.py``."""
    train(argv)


if __name__ == '__main__':
    main()
