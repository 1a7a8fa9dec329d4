"""See mmebm/commands/app.py."""

from mmebm.commands.app import main

if __name__ == '__main__':
    main()
