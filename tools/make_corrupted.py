"""See mmebm/commands/make_corrupted.py."""

from mmebm.commands.make_corrupted import main

if __name__ == '__main__':
    main()
