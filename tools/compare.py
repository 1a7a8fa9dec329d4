"""See mmebm/commands/compare.py."""

from mmebm.commands.compare import main

if __name__ == '__main__':
    main()
