package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/dapr/components-contrib/bindings"
	"github.com/dapr/components-contrib/pubsub"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const again = 50 * time.Millisecond

// broker has one queue for each topic, which all its subscriptions share; what fails comes again.
type broker struct {
	life
}

func newBroker() *broker { return &broker{} }

// All components of the process see the same topics.
var (
	topicsMu sync.Mutex
	topics   = map[string]chan *pubsub.NewMessage{}
)

func (b *broker) Init(_ context.Context, metadata pubsub.Metadata) error {
	return b.begin(metadata.Properties)
}

func (b *broker) Features() []pubsub.Feature { return nil }

func (b *broker) GetComponentMetadata() map[string]string { return nil }

func (b *broker) Close() error { return nil }

func topic(name string) chan *pubsub.NewMessage {
	topicsMu.Lock()
	defer topicsMu.Unlock()
	if topics[name] == nil {
		topics[name] = make(chan *pubsub.NewMessage, 10000)
	}
	return topics[name]
}

func (b *broker) Publish(_ context.Context, request *pubsub.PublishRequest) error {
	if err := b.check(); err != nil {
		return err
	}
	if request.Metadata["refuse"] != "" {
		return status.Error(codes.ResourceExhausted, "refused")
	}
	topic(request.Topic) <- &pubsub.NewMessage{
		Data: request.Data, Topic: request.Topic, Metadata: request.Metadata, ContentType: request.ContentType,
	}
	return nil
}

// Subscribe begins maxInFlight deliveries side by side, 10 unless the subscription says otherwise.
func (b *broker) Subscribe(ctx context.Context, request pubsub.SubscribeRequest, handler pubsub.Handler) error {
	if err := b.check(); err != nil {
		return err
	}
	limit, err := strconv.Atoi(request.Metadata["maxInFlight"])
	if err != nil {
		limit = 10
	}
	queue := topic(request.Topic)
	for range limit {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case message := <-queue:
					if ctx.Err() != nil {
						queue <- message
						return
					}
					if handler(ctx, message) != nil {
						if ctx.Err() == nil {
							time.Sleep(again)
						}
						queue <- message
					}
				}
			}
		}()
	}
	return nil
}

// What an output binding is given is what the input bindings of the same loop have to tell.
var (
	loopsMu sync.Mutex
	loops   = map[string]chan []byte{}
)

func (l *life) loop() chan []byte {
	loopsMu.Lock()
	defer loopsMu.Unlock()
	name := l.properties["loop"]
	if loops[name] == nil {
		loops[name] = make(chan []byte, 10000)
	}
	return loops[name]
}

type input struct {
	life
}

func (i *input) Init(_ context.Context, metadata bindings.Metadata) error {
	return i.begin(metadata.Properties)
}

func (i *input) GetComponentMetadata() map[string]string { return nil }

func (i *input) Close() error { return nil }

func (i *input) Read(ctx context.Context, handler bindings.Handler) error {
	if err := i.check(); err != nil {
		return err
	}
	events := i.loop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case data := <-events:
				if ctx.Err() != nil {
					events <- data
					return
				}
				go func() {
					event := &bindings.ReadResponse{Data: data, Metadata: map[string]string{"from": "go"}}
					if _, err := handler(ctx, event); err != nil {
						if ctx.Err() == nil {
							time.Sleep(again)
						}
						events <- data
					}
				}()
			}
		}
	}()
	return nil
}

type output struct {
	life
}

func (o *output) Init(_ context.Context, metadata bindings.Metadata) error {
	return o.begin(metadata.Properties)
}

func (o *output) GetComponentMetadata() map[string]string { return nil }

func (o *output) Close() error { return nil }

func (o *output) Operations() []bindings.OperationKind {
	return []bindings.OperationKind{bindings.CreateOperation, "echo"}
}

func (o *output) Invoke(_ context.Context, request *bindings.InvokeRequest) (*bindings.InvokeResponse, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	switch request.Operation {
	case bindings.CreateOperation:
		o.loop() <- request.Data
		return nil, nil
	case "echo":
		return &bindings.InvokeResponse{Data: request.Data, Metadata: request.Metadata}, nil
	}
	return nil, status.Error(codes.InvalidArgument, "no such operation")
}
