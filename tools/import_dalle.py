"""See mmebm/commands/import_dalle.py."""

from mmebm.commands.import_dalle import main

if __name__ == '__main__':
    main()
