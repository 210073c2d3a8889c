"""The invoke tasks, gathered from `pipeline/commands/`.

`invoke --list` shows them, `invoke --help TASK` explains one.
"""

from pipeline.commands.program import namespace
