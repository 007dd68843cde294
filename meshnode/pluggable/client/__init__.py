"""The node's side: sockets found and asked, and the components behind them as drivers.

reflection     which services a socket has
errors         gRPC statuses to the error tree
connection     the connection to a component's process, renewed and initialised again when it was lost
pulling        a stream of messages and their acknowledgements
state, pubsub, bindings, secretstores      one kind each
drivers        services to drivers
discovery      a folder to drivers
"""
