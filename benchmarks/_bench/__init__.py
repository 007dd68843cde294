"""What the benchmark scripts share.

Three kinds of process take part, each with an interpreter of its own: the script (starts the others, waits,
counts their CPU time, prints), one client (`client`, the load), and what is measured (nodes, applications,
Envoy, Redis). The script sleeps while a measurement runs.

    requests, blocks          what a call sends
    pacing, stats             when it is sent, what became of it
    client, client_*, echo    the programs
    processes, cpu, machine   starting, ending and observing programs
    nodes, others             meshnode nodes; Envoy, Redis
    options, rounds, report   the measuring itself

Everything listens on loopback only.
"""
