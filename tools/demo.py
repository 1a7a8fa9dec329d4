"""See mmebm/commands/demo.py."""

from mmebm.commands.demo import main

if __name__ == '__main__':
    main()
