"""See mmebm/commands/pretrain.py."""

from mmebm.commands.pretrain import main

if __name__ == '__main__':
    main()
