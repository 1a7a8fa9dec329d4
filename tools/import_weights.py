"""See mmebm/commands/import_weights.py."""

from mmebm.commands.import_weights import main

if __name__ == '__main__':
    main()
