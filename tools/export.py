"""See mmebm/commands/export.py."""

from mmebm.commands.export import main

if __name__ == '__main__':
    main()
