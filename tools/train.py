"""See mmebm/commands/train.py."""

from mmebm.commands.train import main

if __name__ == '__main__':
    main()
