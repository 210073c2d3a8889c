"""The invoke tasks, gathered from `pipeline/commands/`.

`invoke --list` shows them, `invoke --help TASK` explains one.
"""

from pipeline.commands.own_program import put_in_place
from pipeline.commands.program import namespace

put_in_place()  # before invoke reads the tasks of its command line
