"""See mmebm/commands/plan.py."""

from mmebm.commands.plan import main

if __name__ == '__main__':
    main()
