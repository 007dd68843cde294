"""The component's side: a driver served on a socket.

instances      the driver opened for each component that nodes have initialised
method         a method of a service on an instance; errors as statuses
pulling        a stream of deliveries and their acknowledgements
state, pubsub, bindings, secretstores      the services of one kind each
serving        socket, server, reflection
"""
