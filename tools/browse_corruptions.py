"""See mmebm/commands/browse_corruptions.py."""

from mmebm.commands.browse_corruptions import main

if __name__ == '__main__':
    main()
