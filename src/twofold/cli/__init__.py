"""The command line. One file a command; nothing heavy is imported before a command needs it."""
