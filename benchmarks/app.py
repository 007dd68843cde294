"""The application of the benchmarks by itself, to put behind another sidecar:

python benchmarks/app.py --port 9000 &
daprd --app-id echo --app-port 9000 --app-protocol grpc … &
python benchmarks/proxy.py --against 127.0.0.1:50001
"""

from _bench.echo import main

if __name__ == "__main__":
    main()
