"""The order of the stages: plan, run, tune, report."""
