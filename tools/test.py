"""See mmebm/commands/test.py."""

from mmebm.commands.test import main

if __name__ == '__main__':
    main()
