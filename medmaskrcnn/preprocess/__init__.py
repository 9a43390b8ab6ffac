"""From a Volume to the network's tensor; each step records how to undo itself."""
