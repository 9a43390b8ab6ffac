"""Batches of series on one or many machines: selected by rules, run by workers, recorded in a ledger."""
