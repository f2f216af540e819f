"""The commands: arguments in, tables and exit codes out. A module for each thing that they are about."""
