"""Recorded histories: publishers and subscribers write down what they did while everything around them is
killed, paused and cut off on a seeded schedule; then a pure function judges what they wrote.

From the bottom: `records` (how something is written down), `checker` and `transactions` (the verdicts),
`faults` (the schedule), `links` and `daemons` (what can be cut off and killed), `plan` (what one seed means),
`resources` (the nodes' YAML), `publisher`, `subscriber` and `transactor` (the applications, processes of
their own that know nothing of the rest), `run` (one seed), `__main__` (many).

    PYTHONPATH=tests .venv/bin/python -m histories --broker redis --seeds 1-100 --out /tmp/histories
"""
