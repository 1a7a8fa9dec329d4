"""See mmebm/commands/report.py."""

from mmebm.commands.report import main

if __name__ == '__main__':
    main()
