"""See mmebm/commands/energy.py."""

from mmebm.commands.energy import main

if __name__ == '__main__':
    main()
