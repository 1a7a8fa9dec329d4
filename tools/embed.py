"""See mmebm/commands/embed.py."""

from mmebm.commands.embed import main

if __name__ == '__main__':
    main()
