"""Many series on one machine or many: found by rules, run by workers, remembered in a ledger."""
