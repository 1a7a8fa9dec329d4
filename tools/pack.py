"""See mmebm/commands/pack.py."""

from mmebm.commands.pack import main

if __name__ == '__main__':
    main()
