"""See mmebm/commands/replay.py."""

from mmebm.commands.replay import main

if __name__ == '__main__':
    main()
