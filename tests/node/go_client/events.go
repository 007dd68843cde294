package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprd "github.com/dapr/go-sdk/service/grpc"
)

// publishEvents is the SDK as publisher, as streaming subscriber and as user of an output binding.
func publishEvents(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := dapr.NewClientWithAddressContext(ctx, address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	seen := map[string]any{}

	if err := publishEach(ctx, client); err != nil {
		return err
	}
	entry := dapr.PublishEventsEvent{EntryID: "mine", Data: []byte(`{"n":7}`), ContentType: "application/json"}
	answer := client.PublishEvents(ctx, "pubsub", "plain", []any{map[string]int{"n": 5}, "six", entry})
	if answer.Error != nil {
		return fmt.Errorf("publish events: %w", answer.Error)
	}
	refused := client.PublishEvents(ctx, "ghost", "plain", []any{"x"})
	seen["ghost"] = fmt.Sprint(refused.Error)
	seen["failed"] = refused.FailedEvents
	seen["unknown"] = fmt.Sprint(client.PublishEvent(ctx, "ghost", "plain", "x"))

	if err := stream(ctx, client, seen); err != nil {
		return err
	}
	if err := bind(ctx, client, seen); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func publishEach(ctx context.Context, client dapr.Client) error {
	widget := dapr.PublishEventWithMetadata(map[string]string{"cloudevent.type": "widget"})
	asText := dapr.PublishEventWithContentType("text/plain")
	for _, one := range []struct {
		topic   string
		data    any
		options []dapr.PublishEventOption
	}{
		{"plain", map[string]int{"n": 1}, nil},
		{"plain", "text", []dapr.PublishEventOption{asText}},
		{"retried", "once more", nil},
		{"dropped", "not wanted", nil},
		{"routed", map[string]int{"n": 3}, []dapr.PublishEventOption{widget}},
		{"routed", map[string]int{"n": 4}, nil},
	} {
		if err := client.PublishEvent(ctx, "pubsub", one.topic, one.data, one.options...); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

func stream(ctx context.Context, client dapr.Client, seen map[string]any) error {
	subscription, err := client.Subscribe(ctx, dapr.SubscriptionOptions{PubsubName: "pubsub", Topic: "stream"})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := client.PublishEvent(ctx, "pubsub", "stream", map[string]int{"n": 1}); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	first, err := subscription.Receive()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if err := first.Retry(); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	again, err := subscription.Receive()
	if err != nil {
		return fmt.Errorf("receive again: %w", err)
	}
	seen["streamed"] = again.Data
	seen["same"] = again.ID == first.ID
	if err := again.Success(); err != nil {
		return fmt.Errorf("success: %w", err)
	}
	if err := subscription.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	_, err = subscription.Receive()
	seen["ended"] = fmt.Sprint(err)
	return handle(ctx, client, seen)
}

func handle(ctx context.Context, client dapr.Client, seen map[string]any) error {
	events := make(chan *common.TopicEvent, 1)
	stop, err := client.SubscribeWithHandler(
		ctx,
		dapr.SubscriptionOptions{PubsubName: "pubsub", Topic: "handled"},
		func(event *common.TopicEvent) common.SubscriptionResponseStatus {
			events <- event
			return common.SubscriptionResponseStatusSuccess
		},
	)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := client.PublishEvent(ctx, "pubsub", "handled", "into the handler"); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	select {
	case event := <-events:
		seen["handled"] = string(event.RawData)
	case <-ctx.Done():
		return ctx.Err()
	}
	return stop()
}

func bind(ctx context.Context, client dapr.Client, seen map[string]any) error {
	request := &dapr.InvokeBindingRequest{
		Name: "files", Operation: "create", Data: []byte("from go"), Metadata: map[string]string{"fileName": "go.txt"},
	}
	stored, err := client.InvokeBinding(ctx, request)
	if err != nil {
		return fmt.Errorf("invoke binding: %w", err)
	}
	seen["stored"] = string(stored.Data)
	request.Operation, request.Data = "get", nil
	read, err := client.InvokeBinding(ctx, request)
	if err != nil {
		return fmt.Errorf("invoke binding: %w", err)
	}
	seen["read"] = string(read.Data)
	request.Name = "ghost"
	seen["noBinding"] = fmt.Sprint(client.InvokeOutputBinding(ctx, request))
	return nil
}

// serve is the SDK as application: it prints every event as a line of JSON.
func serve(port string) error {
	service, err := daprd.NewService("127.0.0.1:" + port)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	asked := map[string]bool{}
	var one sync.Mutex // handlers run side by side
	note := func(handler string, data any) {
		_ = lines.Encode(map[string]any{"handler": handler, "data": data})
	}
	add := func(name, topic, match string, answer func(*common.TopicEvent) (bool, error)) {
		subscription := &common.Subscription{PubsubName: "pubsub", Topic: topic, Match: match, Route: "/" + name}
		err = errors.Join(err, service.AddTopicEventHandler(
			subscription,
			func(_ context.Context, event *common.TopicEvent) (bool, error) {
				one.Lock()
				defer one.Unlock()
				note(name, event.Data)
				return answer(event)
			},
		))
	}
	good := func(*common.TopicEvent) (bool, error) { return false, nil }
	add("plain", "plain", "", good)
	add("widgets", "routed", `event.type == "widget"`, good)
	add("rest", "routed", "", good)
	add("dropped", "dropped", "", func(*common.TopicEvent) (bool, error) { return false, errors.New("not wanted") })
	add("retried", "retried", "", func(event *common.TopicEvent) (bool, error) {
		if asked[event.ID] {
			return false, nil
		}
		asked[event.ID] = true
		return true, errors.New("once more")
	})
	err = errors.Join(err, service.AddBindingInvocationHandler(
		"tick",
		func(_ context.Context, event *common.BindingEvent) ([]byte, error) {
			one.Lock()
			defer one.Unlock()
			note("tick", string(event.Data))
			return nil, nil
		},
	))
	if err != nil {
		return err
	}
	fmt.Println("starting")
	return service.Start()
}
