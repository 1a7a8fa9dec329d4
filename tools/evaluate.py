"""See mmebm/commands/evaluate.py."""

from mmebm.commands.evaluate import main

if __name__ == '__main__':
    main()
