"""The process in which networks run, and the messages to and from it."""
