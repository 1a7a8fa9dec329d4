"""See mmebm/commands/restore.py."""

from mmebm.commands.restore import main

if __name__ == '__main__':
    main()
