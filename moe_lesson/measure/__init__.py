"""Measuring: numbers with intervals, instruments, nulls and interventions, and worlds whose truth is known."""
