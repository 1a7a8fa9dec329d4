"""See mmebm/commands/make_shapes.py."""

from mmebm.commands.make_shapes import main

if __name__ == '__main__':
    main()
