// A client no one here wrote: Dapr's Go SDK against a meshnode.
//
//	go-sdk-client ADDRESS APP_ID    state and invocation
//	go-sdk-client events ADDRESS    publishing, streaming subscriptions, output bindings
//	go-sdk-client blocks ADDRESS    secrets, cryptography, locks, configuration
//	go-sdk-client serve PORT        the application that gets events
//
// All but the last take the API's address and print one JSON object with what they saw.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	dapr "github.com/dapr/go-sdk/client"
)

func main() {
	var err error
	switch os.Args[1] {
	case "events":
		err = publishEvents(os.Args[2])
	case "blocks":
		err = useBlocks(os.Args[2])
	case "serve":
		err = serve(os.Args[2])
	default:
		err = run(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, callee string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := dapr.NewClientWithAddressContext(ctx, address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	seen := map[string]any{}

	if err := client.SaveState(ctx, "statestore", "go-key", []byte("go-value"), nil); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	item, err := client.GetState(ctx, "statestore", "go-key", nil)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	seen["value"] = string(item.Value)

	stale := "999999"
	err = client.SaveBulkState(ctx, "statestore", &dapr.SetStateItem{
		Key: "go-key", Value: []byte("other"), Etag: &dapr.ETag{Value: stale},
		Options: &dapr.StateOptions{Concurrency: dapr.StateConcurrencyFirstWrite},
	})
	seen["stale"] = fmt.Sprint(err)

	operations := []*dapr.StateOperation{
		{Type: dapr.StateOperationTypeUpsert, Item: &dapr.SetStateItem{Key: "go-tx", Value: []byte("in transaction")}},
		{Type: dapr.StateOperationTypeDelete, Item: &dapr.SetStateItem{Key: "go-key"}},
	}
	if err := client.ExecuteStateTransaction(ctx, "statestore", nil, operations); err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	items, err := client.GetBulkState(ctx, "statestore", []string{"go-key", "go-tx"}, nil, 10)
	if err != nil {
		return fmt.Errorf("bulk get: %w", err)
	}
	bulk := map[string]string{}
	for _, item := range items {
		bulk[item.Key] = string(item.Value)
	}
	seen["bulk"] = bulk

	content := &dapr.DataContent{ContentType: "text/plain", Data: []byte("from go")}
	out, err := client.InvokeMethodWithContent(ctx, callee, "echo", "post", content)
	if err != nil {
		return fmt.Errorf("invoke: %w", err)
	}
	seen["invoked"] = string(out)

	metadata, err := client.GetMetadata(ctx)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	seen["app_id"] = metadata.ID
	return json.NewEncoder(os.Stdout).Encode(seen)
}
